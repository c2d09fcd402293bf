"""Seconds without SIP while datagrams make Asterisk look up names, and the name server is silent.

The datagrams redirect their answer to nobody (``maddr=255.255.255.255``), with hidden credentials in the
second fragment, or to hosts of other names. The settings are those that setup writes, or that
`check --hardening` recommends. For comparison, the same datagrams meet an Asterisk without them and without
ringfence.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.figures import Figure
from tests.support.guarded import guarded
from tests.support.lab import Lab
from tests.support.look_ups import PJSIP_ONLY, hidden_guess, seconds_without_sip, with_silent_names
from tests.support.sip_raw import Raw, calling

_DATAGRAMS = 300
_WATCHED = 15.0
_ATTACKER, _PHONE = "198.19.7.8", "198.19.9.7"


def figures(_: Path | None) -> Iterator[Figure]:
    """Yield a row for each kind of datagram."""
    yield _row("maddr=255.255.255.255, hidden credentials in the second fragment", hidden_guess)
    yield _row("maddr=HOST", lambda number: Raw(via=b";maddr=h%d.example.net" % number))


def _row(what: str, datagram: Callable[[int], Raw]) -> Figure:
    with tempfile.TemporaryDirectory() as folder, with_silent_names(Path(folder)) as (lab, etc):
        (etc / "hosts").write_text("127.0.0.1 localhost\n", "utf-8")
        without = _attacked(lab, datagram)
    with (
        tempfile.TemporaryDirectory() as folder,
        with_silent_names(Path(folder), PJSIP_ONLY) as (lab, _),
        guarded(lab, Path(folder), firewall={"backend": "nftables"}) as guard,
    ):
        silent = _attacked(lab, datagram)
        scopes = [row["scope"] for row in guard.bans() if row["address"] == _ATTACKER]
    return Figure(
        what=(
            f"{_DATAGRAMS} datagrams with {what}, silent name server: "
            f"seconds of {_WATCHED:.0f} without SIP; ban"
        ),
        measured=f"{silent}; {', '.join(scopes) or 'none'}",
        must="0; sip-udp",
        reached=silent == 0 and scopes == ["sip-udp"],
        compared=f"Asterisk alone, its own name not in /etc/hosts: {without}",
    )


def _attacked(lab: Lab, datagram: Callable[[int], Raw]) -> int:
    with calling(lab, _ATTACKER) as attacker, calling(lab, _PHONE) as phone:
        for number in range(_DATAGRAMS):
            attacker.send(datagram(number))
        return seconds_without_sip(phone, _WATCHED)
