"""The metrics: each value is that of the part that counts it, and no label is chosen by a remote party."""

import time
import urllib.request
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from tests.detect.events import event
from tests.docs.pages import rows_of, section_of, text_of
from tests.support.amiserver import Script
from tests.support.attempts import attempts
from tests.support.captures import capture
from tests.support.daemon import GRANTED, Guard, ami_server, until
from tests.support.kept import PHONE, Kept
from tests.support.web import free_port

from ringfence.alarm_codes import AlarmCode
from ringfence.detect.judgement import Decision
from ringfence.detect.rules import RULES
from ringfence.features.account.guard import LoginWatch
from ringfence.features.account.settings import Elsewhere
from ringfence.features.bare_address.guard import BareAddress
from ringfence.features.fence.guard import FenceRequests
from ringfence.features.limiter.guard import Limiter
from ringfence.features.metrics.collector import FRESH, DaemonMetrics
from ringfence.features.phones.guard import GonePhones
from ringfence.features.publish.guard import Publisher
from ringfence.features.ration.guard import Rations
from ringfence.firewall.contract import Counters, RuleCounter
from ringfence.guard.pipeline import EffectHandler, Pipeline
from ringfence.ledger import Record, key_of
from ringfence.sources.state import Condition, State
from ringfence.values.ban import Ban, Scope
from ringfence.values.event import WIRE, EventKind, SourceId
from ringfence.values.secret import Secret

if TYPE_CHECKING:
    from ringfence.guard.feature import Feature

SUBJECT = ip_network("203.0.113.1/32")
GUESSES = capture("asterisk-22", "wrong-password-register").ami.read_bytes()
LOG = SourceId("pbx", "log:/var/log/x")


class Scraped:
    """The metrics of parts that a test sets, as a scraper parses them."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        effects = EffectHandler(kept.enforcer, kept.alarms, kept.side.exempt.friends)
        self.pipeline = Pipeline(kept.detector, effects, kept.clock, "pbx")
        counts = SimpleNamespace(tampered=1, garbled=2)
        log = SimpleNamespace(
            id=LOG, condition=Condition(State.LISTENING), last_sign=kept.clock.mono() - 4.0, counts=counts
        )
        silent = SimpleNamespace(
            id=SourceId("pbx", "ami"), condition=Condition(State.UNREACHABLE), last_sign=None, counts=counts
        )
        wire: Any = SimpleNamespace(
            id=WIRE,
            condition=Condition(State.LISTENING),
            last_sign=kept.clock.mono(),
            counts=SimpleNamespace(challenges=5, lost=6, gaps=7),
        )
        sources: Any = SimpleNamespace(active=[log, silent], others=[wire])
        effort = kept.side.common.store.best_effort
        effort.dropped = 9
        effort._kept = dict.fromkeys(range(8), int)
        self.publisher = Publisher(kept.side, Secret("0123456789abcdef"), 10)
        judge: Any = None
        connections: Any = None
        side = kept.side
        features: list[Feature] = [
            FenceRequests(side),
            LoginWatch(side, Elsewhere.NOTIFY),
            Limiter(side, judge),
            Rations(side),
            BareAddress(side, effects, connections, side.kernel.wanted_rules.settings),
            GonePhones(side, sources, 1_800.0),
            self.publisher,
        ]
        self.metrics = DaemonMetrics(side, self.pipeline, sources, wire, features)

    def values(self) -> dict[str, float]:
        """Return the value of each sample by its name and its label values."""
        self.kept.now += FRESH
        return {
            " ".join([sample.name, *sample.labels.values()]): sample.value
            for family in text_string_to_metric_families(self.metrics.render().decode())
            for sample in family.samples
        }


@pytest.fixture(name="scraped")
def _scraped(kept: Kept) -> Scraped:
    """Return the metrics of parts that are started."""
    kept.side.start()
    return Scraped(kept)


def test_sources_are_measured(scraped: Scraped) -> None:
    """Each source has its condition, its silence and its events; the notices of a log count as the log."""
    notices = SourceId("pbx", f"{LOG.name}#notice")
    kinds = dict.fromkeys(EventKind, 0)
    scraped.pipeline.events[LOG] = kinds | {EventKind.INVALID_PASSWORD: 2}
    scraped.pipeline.events[notices] = kinds | {EventKind.INVALID_PASSWORD: 1}
    values = scraped.values()

    assert values["ringfence_events_total InvalidPassword pbx/log:/var/log/x"] == 3
    assert values["ringfence_events_total ChallengeSent wire"] == 5
    assert values["ringfence_source_up pbx/log:/var/log/x"] == 1
    assert values["ringfence_source_up pbx/ami"] == 0
    assert values["ringfence_source_silent_seconds pbx/log:/var/log/x"] == 4 + FRESH
    assert "ringfence_source_silent_seconds pbx/ami" not in values
    assert values["ringfence_events_garbled_total pbx/ami"] == 2
    assert values["ringfence_wire_lost_packets_total"] == 6


def test_attempts_and_bans_are_measured(scraped: Scraped) -> None:
    """Attempts count by kind and proof, bans by rule and scope; rules of other versions share one label."""
    kept = scraped.kept
    scraped.pipeline.on_events([event(EventKind.CHALLENGE_RESPONSE_FAILED)], 0.0)
    kept.detector.counts.unconfirmed, kept.detector.counts.hidden, kept.detector.counts.forged = 1, 2, 3
    kept.enforcer.carry_out(Decision(SUBJECT, RULES[0], attempts(5), kept.clock.mono() - 0.02))
    kept.ban("203.0.113.9")
    kept.add(
        Ban(ip_network("203.0.113.8"), since=kept.now, expires=kept.now + 60, rule='x"} 1\nfake 1', reason="")
    )
    kept.detector.friends.add(PHONE)
    values = scraped.values()

    assert sum(value for name, value in values.items() if name.startswith("ringfence_attempts_total")) == 1
    assert values["ringfence_attempts_unconfirmed_total"] == 1
    assert values["ringfence_attempts_hidden_total"] == 2
    assert values["ringfence_evidence_forged_total"] == 3
    assert values[f"ringfence_bans_total {RULES[0].name} full"] == 1
    assert values["ringfence_bans_total admin full"] == 1
    assert values["ringfence_bans_total other full"] == 1
    assert values["ringfence_bans_expected"] == 3
    assert values["ringfence_ban_delay_seconds_bucket 0.01"] == 0
    assert values["ringfence_ban_delay_seconds_bucket 0.025"] == 1
    assert values["ringfence_ban_delay_seconds_count"] == 1
    assert values["ringfence_ban_delay_seconds_sum"] == pytest.approx(0.02)
    assert values["ringfence_friends"] == 1


def test_the_firewall_the_store_and_the_process_are_measured(scraped: Scraped) -> None:
    """The latest counters of the firewall, the queues, the alarms and the process have their values."""
    kept = scraped.kept
    assert "ringfence_limiter_drops_total" not in scraped.values()
    kept.side.kernel.counters.latest = Counters(
        (RuleCounter("from banned addresses", 10, 600),), counted={"limiter_drops": 11, "limiter_full": 12}
    )
    kept.alarms.activate(AlarmCode.PHONE_BROKEN, "alice", "fails")
    values = scraped.values()

    assert values["ringfence_enforcing"] == 0  # the memory firewall drops nothing
    assert values["ringfence_dropped_packets_total from banned addresses"] == 10
    assert values["ringfence_dropped_bytes_total from banned addresses"] == 600
    assert values["ringfence_limiter_drops_total"] == 11
    assert values["ringfence_queue_length database"] == 8
    assert values["ringfence_database_refused_writes_total"] == 9
    assert values["ringfence_database_bytes"] > 0
    assert values["ringfence_alarms phone.broken"] == 1
    assert values["ringfence_alarms firewall.off"] == 0
    assert values["process_resident_memory_bytes"] > 10_000_000
    assert values["process_start_time_seconds"] <= kept.now


def test_a_page_is_read_once_a_second(scraped: Scraped) -> None:
    """Two scrapers within a second get the same page, so that many scrapers cost no more than one."""
    before = scraped.metrics.render()
    scraped.kept.ban("203.0.113.9")
    assert scraped.metrics.render() is before
    scraped.kept.now += FRESH
    assert scraped.metrics.render() != before


def test_a_page_takes_as_long_with_many_bans(scraped: Scraped) -> None:
    """The time to make the page does not grow with the number of bans."""
    kept = scraped.kept
    empty = best_of(scraped)
    ban = Ban(SUBJECT, since=kept.now, expires=kept.now + 86_400.0, rule="guess")
    record = Record.of(ban)
    for number in range(50_000):
        kept.side.kernel.enforcer.ledger.put(key_of(ip_network(0x0A000000 + number), Scope.FULL), record)

    assert scraped.values()["ringfence_bans_expected"] == 50_000
    assert any(best_of(scraped) < 3 * empty for _ in range(5))


def best_of(scraped: Scraped) -> float:
    """Return the shortest time of some pages (seconds)."""
    times = []
    for _ in range(5):
        scraped.kept.now += FRESH
        began = time.thread_time()
        scraped.metrics.render()
        times.append(time.thread_time() - began)
    return min(times)


def test_a_daemon_serves_its_metrics(tmp_path: Path) -> None:
    """A running daemon serves them at the configured address, and serves none by default."""
    play = Script(play=[GRANTED, GUESSES])
    with ami_server(play) as pbx, Guard(tmp_path, ami={"port": pbx.port}) as guard:
        until(lambda: guard.status()["attempts"] == 3, "the attempts")
        assert "metrics.served" not in guard.log
        guard.stop()
        place = f"127.0.0.1:{free_port()}"
        guard.configure(metrics={"listen": place})
        guard.start()
        until(lambda: guard.status()["attempts"] == 3, "the attempts")
        with urllib.request.urlopen(f"http://{place}/metrics", timeout=20) as answer:
            page = answer.read().decode()

    assert 'ringfence_attempts_total{kind="guess",proof="claimed"} 3.0' in page.split("\n")
    assert 'ringfence_source_up{source="pbx/ami"} 1.0' in page.split("\n")
    assert "198.18.1.101" not in page
    assert "alice" not in page


def test_every_metric_is_explained(scraped: Scraped) -> None:
    """The table of docs/metrics.md has each metric with its type, its labels and its meaning."""
    scraped.kept.side.kernel.counters.latest = Counters((RuleCounter("from banned addresses", 10, 600),))
    scraped.pipeline.events[LOG] = dict.fromkeys(EventKind, 0)
    page = scraped.metrics.render().decode()
    rows = rows_of(section_of(text_of("docs/metrics.md"), "## All metrics"))

    assert rows == [table_row(family) for family in text_string_to_metric_families(page)]


def table_row(family: Metric) -> list[str]:
    """Return the row of the table for a metric."""
    name = f"{family.name}_total" if family.type == "counter" else family.name
    labels = dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le")
    return [f"`{name}`", family.type, ", ".join(f"`{label}`" for label in labels), family.documentation]
