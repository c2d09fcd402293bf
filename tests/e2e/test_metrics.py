"""Metrics and history of a daemon that bans a guesser at a real Asterisk, in the real kernel."""

import json
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.daemon import Guard, until
from tests.support.guarded import guarded
from tests.support.lab import Lab
from tests.support.netns import inside

pytestmark = pytest.mark.asterisk

LISTEN = "127.0.0.1:9721"
SENDER = "198.19.40.1"


def scraped(lab: Lab, guard: Guard) -> dict[str, float]:
    """Return the value of each sample by its name and its label values; the daemon reads its counters."""
    guard.status()
    with inside(lab.network.pbx), closing(HTTPConnection(LISTEN, timeout=10)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def is_measured(lab: Lab, guard: Guard) -> bool:
    """Whether the ban is in the kernel and drops packets, by the counters that the daemon reads.

    The sender tries again each time, because new rules (of the limiter, soon after the start) begin at zero.
    """
    lab.attack("guess", "--number", "1", "--timeout", "0.2", "--sources", SENDER)
    values = scraped(lab, guard)
    name = "ringfence_dropped_packets_total {} banned addresses"
    dropped = sum(values.get(name.format(way), 0) for way in ("from", "to"))
    return values["ringfence_bans_enforced"] == 1 and dropped > 0


@pytest.mark.parametrize("backend", [pytest.param("ipset", marks=pytest.mark.long), "nftables"])
def test_a_ban_is_measured(asterisk22: Lab, tmp_path: Path, backend: str) -> None:
    """The attempts, their proof, the ban, its delay and the dropped packets are in the metrics."""
    options = {"metrics": {"listen": LISTEN}, "firewall": {"backend": backend}}
    with guarded(asterisk22, tmp_path, **options) as guard:
        began = time.monotonic()
        assert asterisk22.attack("guess", "--number", "2000", "--sources", SENDER).stopped == "silence"
        until(lambda: is_measured(asterisk22, guard), "the ban", pause=0.5)
        took = time.monotonic() - began
        values = scraped(asterisk22, guard)
        history = json.loads(guard.must("history", "--json"))

    later = values["ringfence_attempts_proven_later_total guess"]
    assert values["ringfence_attempts_total guess nonce"] + later >= 4
    assert values["ringfence_bans_total guess sip"] == 1
    assert values["ringfence_bans_expected"] == 1
    bans = 1 + values["ringfence_bans_total guess sip-udp"]  # a claimed ban may come before the proven one
    assert values["ringfence_ban_delay_seconds_count"] == bans
    assert values["ringfence_ban_delay_seconds_sum"] < bans * took
    assert values["ringfence_enforcing"] == 1
    sources = ("pbx/ami", f"pbx/log:{asterisk22.asterisk.logs}/ringfence", "wire")
    assert [values[f"ringfence_source_up {source}"] for source in sources] == [1, 1, 1]
    assert max(values[f"ringfence_source_silent_seconds {source}"] for source in sources) < 60
    assert values["ringfence_events_total ChallengeResponseFailed pbx/ami"] >= 5
    assert not any(SENDER in name or "alice" in name for name in values)
    assert history["totals"]["attempts"]["guess"]["proven"] >= 4
    assert history["totals"]["bans"] == {"guess": bans}
