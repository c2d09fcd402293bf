"""Two Asterisks on one host, the second with chan_sip: each guess counts once, whichever it tries."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from tests.e2e.test_framing import settle
from tests.support.asterisk import SECRET, Asterisk, tree_of
from tests.support.asterisk_files import MANAGER_PORT, MANAGER_USER, Kind
from tests.support.daemon import Guard, until
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4
from tests.support.open_pbx import configured
from tests.support.sip_raw import Raw, calling

pytestmark = pytest.mark.asterisk

OTHER_SIP, OTHER_AMI = 5090, 5048
_OTHER = {
    "pjsip.conf": f"[other]\ntype = transport\nprotocol = udp\nbind = {PBX_IPV4}:{OTHER_SIP}\n",
    "manager.conf": f"[general](+)\nport = {OTHER_AMI}\ntlsbindaddr = 127.0.0.1:{OTHER_AMI + 1}\n",
}
GUESSES = 4
"""One less than the threshold."""


@frozen
class Both:
    """A host with Asterisk 22, the first, and Asterisk 16 with chan_sip, the second; and its daemon."""

    lab: Lab
    guard: Guard


def _table(name: str, port: int, asterisk: Asterisk) -> dict[str, Any]:
    return {
        "name": name,
        "ami": {"username": MANAGER_USER, "secret": SECRET, "port": port},
        "logs": {"paths": [str(asterisk.logs / "ringfence")], "timezone": "UTC"},
        "wire": {"enabled": True},
    }


@pytest.fixture(name="both")
def _both(tmp_path: Path) -> Iterator[Both]:
    with (
        Lab.made("16", configured("16")) as lab,
        Asterisk(tree_of("22"), lab.network.pbx, Kind.PJSIP, extra=_OTHER) as first,
    ):
        tables = [_table("first", OTHER_AMI, first), _table("second", MANAGER_PORT, lab.asterisk)]
        firewall = {"backend": "ipset", "ration": {"mode": "observe", "asking": "observe"}}
        with Guard(tmp_path, prefix=lab.network.in_pbx(), asterisk=tables, firewall=firewall) as guard:
            until(lambda: guard.source_is("listening"), "all sources")
            until(lambda: "friends.known" in guard.log, "the friends to be known")
            yield Both(lab, guard)


def test_each_guess_counts_once(both: Both) -> None:
    """Guesses at both Asterisks, by UDP and TCP, with and without events: each is one attempt."""
    cases = [
        (5060, "UDP", b"{}", b"carol"),
        (5060, "TCP", b"{}", b"carol"),
        (OTHER_SIP, "UDP", b"{}", b"alice"),
        (OTHER_SIP, "UDP", b"\xff{}", b"alice"),
        (5080, "UDP", b"{}", b"alice"),
    ]
    sources = [f"198.19.{60 + number}.1" for number in range(len(cases))]
    for source, (port, transport, call_id, account) in zip(sources, cases, strict=True):
        with calling(both.lab, source, transport, port) as caller:
            request = Raw(from_user=account, call_id=call_id)
            statuses = [caller.guess(request, f"wrong-{number}", 2.0) for number in range(GUESSES)]
        assert set(statuses) <= {401, 403}, source
    settle(both.guard, 3.0)

    counts = {source: len(both.guard.ask("why", network=source)["attempts"]) for source in sources}
    assert counts == dict.fromkeys(sources, GUESSES)
    assert both.guard.banned() == set()
