"""The lines of ``ringfence check`` about the rule ``bare_address``."""

from collections.abc import Iterator, Mapping
from typing import Any

from ringfence.cli.check import Checked
from ringfence.features.bare_address.habits import DAY, WATCH_FOR
from ringfence.features.bare_address.settings import BareAddressSettings, mode_of
from ringfence.findings import Finding
from ringfence.firewall.limits import LimitMode
from ringfence.lists.entries import parse_host
from ringfence.plurals import counted
from ringfence.values.text import readable_time

_SHOWN = 10
_WHAT = "bare address"


def findings(checked: Checked) -> Iterator[Finding]:
    """Name the friends that ask for no name of the PBX; propose the rule if for seven days there was none."""
    if mode_of(checked.settings) is LimitMode.OFF:
        if checked.settings.of(BareAddressSettings).mode is not LimitMode.OFF:
            yield Finding(
                None, _WHAT, "does nothing without the wire; fix: enabled = true in [asterisk.wire]"
            )
        return
    found = None if checked.report is None else checked.report.get("bare_address")
    if found is None:
        started = "only a daemon that was started with this mode knows what friends ask for"
        yield Finding(None, _WHAT, started)
        return
    for friend in found["friends"][-_SHOWN:]:
        who = ", ".join(friend["accounts"]) or "a friend until lately"
        asks = f"{friend['address']} ({who}) asks for {friend['host']}, and may be banned at a new address"
        yield Finding(None, _WHAT, f"{asks}; fix: {_fix(friend['host'])}")
    if (more := found["without_name"] - _SHOWN) > 0:
        yield Finding(None, _WHAT, f"{counted(more, 'more friend')} ask so: ringfence status --json")
    if not found["without_name"]:
        yield _of_all(found)


def _fix(host: str) -> str:
    """Return what to do about a friend that asks for ``host``; not every host may be one of the domains."""
    fix = "give it a name of this PBX as its server"
    try:
        parse_host(host)
    except ValueError:
        return fix
    # Anybody may have sent that request: its host may be a scanner's.
    return f"{fix}, or if {host} is another name of this PBX, add that to domains in [bare_address]"


def _of_all(found: Mapping[str, Any]) -> Finding:
    """Return the finding if no friend asks for a bare address."""
    seen = counted(found["seen"], "friend")
    since = f"since {readable_time(found['since'])}, {seen} asked for a name of this PBX, and none for less"
    if found["mode"] == LimitMode.ENFORCE:
        return Finding(right=True, what=_WHAT, detail=since)
    if not found["seen"]:
        return Finding(None, _WHAT, "no request of a friend was seen yet; those by TLS cannot be read")
    if found["watched"] < WATCH_FOR:
        days = counted(round(WATCH_FOR / DAY), "day")
        return Finding(None, _WHAT, f"{since}; after {days} without one, the rule may be enforced")
    return Finding(None, _WHAT, f'{since}; to ban strangers that do: mode = "enforce" in [bare_address]')
