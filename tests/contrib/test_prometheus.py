"""The alert rules and the dashboard, with a real Prometheus that scrapes a real daemon."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docs.pages import rows_of, section_of, text_of
from tests.support.amiserver import Script
from tests.support.captures import capture
from tests.support.daemon import GRANTED, Guard, ami_server, until
from tests.support.prometheus import Prometheus, free_port, promtool, why_no_prometheus

ROOT = Path(__file__).parents[2]
RULES = ROOT / "contrib/prometheus/ringfence.rules.yml"
DASHBOARD = ROOT / "contrib/grafana/ringfence.json"
CASES = Path(__file__).with_name("ringfence.rules.test.yml")
GUESSES = capture("asterisk-22", "wrong-password-register").ami.read_bytes()
METRIC = re.compile(r"\b(?:ringfence|process)_[a-z_]+\b")

real = pytest.mark.skipif(bool(why_no_prometheus()), reason=why_no_prometheus())


def documented() -> set[str]:
    """Return the names of all samples, by the table of docs/metrics.md."""
    names = set()
    for cell, kind, _, _ in rows_of(section_of(text_of("docs/metrics.md"), "## All metrics")):
        parts = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        names |= {cell.strip("`") + part for part in parts}
    return names


def expressions() -> list[str]:
    """Return the queries of the dashboard."""
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("text", [RULES.read_text("utf-8"), DASHBOARD.read_text("utf-8")])
def test_each_metric_that_is_used_exists(text: str) -> None:
    """The alert rules and the dashboard name metrics of the daemon only."""
    used = set(METRIC.findall(text))

    assert len(used) > 10
    assert used - documented() == set()


def test_the_dashboard_shows_every_metric() -> None:
    """The dashboard has a query for each metric of the daemon's own, except what it needs for itself."""
    shown = set(METRIC.findall("\n".join(expressions())))
    others = {"ringfence_ban_delay_seconds_sum", "ringfence_ban_delay_seconds_count", "ringfence_build_info"}
    rare = {
        "ringfence_attempts_exempt_total",
        "ringfence_attempts_proven_later_total",
        "ringfence_bans_displaced_total",
        "ringfence_bans_failed_total",
        "ringfence_dropped_bytes_total",
        "ringfence_fenced_also_total",
        "ringfence_fenced_total",
        "ringfence_wire_gaps_total",
        "process_start_time_seconds",
    }

    assert documented() - shown == others | rare


@real
def test_promtool_accepts_the_rules() -> None:
    """Prometheus' own tool finds no mistake in the rules."""
    done = promtool("check", "rules", str(RULES))

    assert done.returncode == 0, done.stdout + done.stderr


@real
def test_each_alert_has_values_that_raise_it(tmp_path: Path) -> None:
    """Good values raise no alert, and bad values raise all of them."""
    cases = tmp_path / "cases.yml"
    cases.write_text(CASES.read_text("utf-8").replace("[RULES]", f"[{RULES}]"), "utf-8")
    done = promtool("test", "rules", str(cases))

    assert done.returncode == 0, done.stdout + done.stderr
    named = set(re.findall(r"alert: (\w+)", RULES.read_text("utf-8")))
    assert named == set(re.findall(r'alertname="(\w+)"', CASES.read_text("utf-8")))


@pytest.fixture(name="guard")
def _guard(tmp_path: Path) -> Iterator[Guard]:
    """Yield a daemon with metrics that has seen three attempts, with a firewall that drops nothing."""
    script = Script(play=[GRANTED, GUESSES])
    listen = f"127.0.0.1:{free_port()}"
    with (
        ami_server(script) as pbx,
        Guard(tmp_path, ami={"port": pbx.port}, metrics={"listen": listen}) as guard,
    ):
        until(lambda: guard.status()["attempts"] == 3, "the attempts")
        yield guard


@real
def test_a_real_prometheus_reads_the_metrics(guard: Guard) -> None:
    """It stores the values, raises the alerts that follow, and evaluates each query of the dashboard."""
    quick = guard.folder / "rules.yml"
    quick.write_text(re.sub(r"for: \d+m", "for: 0s", RULES.read_text("utf-8")), "utf-8")
    with Prometheus(guard.folder, guard.settings["metrics"]["listen"], quick) as prometheus:
        [attempts] = prometheus.query("sum(ringfence_attempts_total)")
        assert attempts["value"][1] == "3"
        until(lambda: prometheus.alerts().get("RingfenceNotEnforcing") == {"firing"}, "the alert", 30.0)
        wrong = {"RingfenceDown", "RingfenceSourceDown", "RingfenceMemory"}
        assert not wrong & prometheus.alerts().keys()

        found = {query: prometheus.query(filled(query)) for query in expressions()}
        assert len(found) > 30
        assert found['sum(ringfence_bans_expected{instance=~"$instance"})'] != []

        guard.stop()
        until(lambda: prometheus.alerts().get("RingfenceDown") == {"firing"}, "the alert", 30.0)


def filled(query: str) -> str:
    """Return a query with values in place of Grafana's variables."""
    return query.replace("$instance", ".*").replace("$__rate_interval", "1m")
