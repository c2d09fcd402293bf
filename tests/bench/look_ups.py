"""Seconds without SIP while datagrams make Asterisk look up names, and the name server is silent.

The datagrams redirect their answer to nowhere (``maddr=255.255.255.255``), with hidden credentials in the
second fragment, or to hosts of other names. The settings are those that setup writes, or that
`check` recommends. For comparison, the same datagrams meet an Asterisk without these settings,
with ringfence and without it.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.figures import Figure
from tests.support.guarded import guarded, until_asking
from tests.support.lab import Lab
from tests.support.look_ups import PJSIP_ONLY, hidden_guess, seconds_without_sip, with_silent_names
from tests.support.sip_raw import Raw, calling

_DATAGRAMS = 300
_WATCHED = 15.0
_NO_NAME = "127.0.0.1 localhost\n"
_ATTACKER, _PHONE = "198.19.7.8", "198.19.9.7"


def figures(_: Path | None) -> Iterator[Figure]:
    """Yield a row for each kind of datagram."""
    yield _row("maddr=255.255.255.255, hidden credentials in the second fragment", hidden_guess)
    yield _row("maddr=HOST", lambda number: Raw(via=b";maddr=h%d.example.net" % number))


def _row(what: str, datagram: Callable[[int], Raw]) -> Figure:
    silent, scopes = _guarded(datagram, recommended=True)
    without, _ = _guarded(datagram, recommended=False)
    with tempfile.TemporaryDirectory() as folder, with_silent_names(Path(folder)) as (lab, etc):
        (etc / "hosts").write_text(_NO_NAME, "utf-8")
        alone = _attacked(lab, datagram)
    return Figure(
        what=(
            f"{_DATAGRAMS} datagrams with {what}, silent name server: "
            f"seconds of {_WATCHED:.0f} without SIP; ban"
        ),
        measured=f"{silent}; {', '.join(scopes) or 'none'}",
        must="0; sip-udp",
        reached=silent == 0 and scopes == ["sip-udp"],
        compared=f"without the settings: {without}; without ringfence too: {alone}",
    )


def _guarded(datagram: Callable[[int], Raw], *, recommended: bool) -> tuple[int, list[str]]:
    """Return the seconds without SIP with every ration, and the scopes of the sender's bans.

    ``recommended``: Asterisk has the settings that setup writes and `check` recommends.
    """
    rations = {"mode": "enforce", "asking": "enforce"}
    with (
        tempfile.TemporaryDirectory() as folder,
        with_silent_names(Path(folder), PJSIP_ONLY if recommended else "") as (lab, etc),
        guarded(lab, Path(folder), firewall={"backend": "nftables", "ration": rations}) as guard,
    ):
        if not recommended:
            (etc / "hosts").write_text(_NO_NAME, "utf-8")
        until_asking(guard)
        silent = _attacked(lab, datagram)
        return silent, [row["scope"] for row in guard.bans() if row["address"] == _ATTACKER]


def _attacked(lab: Lab, datagram: Callable[[int], Raw]) -> int:
    with calling(lab, _ATTACKER) as attacker, calling(lab, _PHONE) as phone:
        for number in range(_DATAGRAMS):
            attacker.send(datagram(number))
        return seconds_without_sip(phone, _WATCHED)
