"""The proof: the daemon is ready, and each of its sources reports one harmless failed login.

The daemon counts what each source reports. If the count of a source grows after the login, the source works,
even if an event of an attacker made it grow. Setup cannot ask the daemon for the failed login itself: it
comes from a loopback address, which is exempt, and the daemon keeps no list of attempts from such addresses.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ringfence import control
from ringfence.audit.findings import Finding
from ringfence.errors import ControlError, DaemonUnreachableError, SetupError
from ringfence.setup.login import LoginTarget

SETTLE = 10.0
"""Seconds to wait until every source listens. Usually this takes less than a second."""
SEEN_WITHIN = 5.0
"""Seconds within which every source must report the login. The log takes longest: a tenth of a second."""
_PAUSE = 0.05
_LISTENING = "listening"
WIRE = "wire"

Report = Mapping[str, Any]


def is_reachable(path: Path) -> bool:
    """Whether a daemon answers at the control socket ``path``."""
    try:
        control.ask(path, "status")
    except DaemonUnreachableError:
        return False
    except ControlError:
        return True
    return True


def wait_for_sources(path: Path, *, log: bool, wait: float = SETTLE) -> Report:
    """Wait at most ``wait`` seconds until every source listens, and return the daemon's status.

    ``log``: one of the sources must be a log file. Raise SetupError if AMI does not listen in the end:
    Asterisk refuses the manager user, or cannot be reached.
    """
    deadline = time.monotonic() + wait
    while True:
        report: Report = control.ask(path, "status")
        sources = report["sources"]
        names = [source["name"] for source in sources if source["state"] == _LISTENING]
        done = len(names) == len(sources) and (not log or any("/log:" in name for name in names))
        if done or time.monotonic() >= deadline:
            break
        time.sleep(_PAUSE)
    for source in sources:
        if source["name"].endswith("/ami") and source["state"] != _LISTENING:
            raise SetupError(f"AMI does not work: {source['state']}: {source['detail']}")
    return report


def prove(
    path: Path, login: Callable[[], LoginTarget | None], *, contained: bool = False, wait: float = SEEN_WITHIN
) -> list[Finding]:
    """Cause the failed login; return a finding for the test as a whole, and one for each source.

    ``login`` causes it, and returns the target that answered, or None. ``contained``: Asterisk is in another
    network namespace of this host. Then the wire (the capture of challenges that this host sends or forwards)
    does not see its answers to this host, and need not report the login. ``wait`` is in seconds.
    """
    before = control.ask(path, "status")
    target = login()
    if target is None:
        why = "Asterisk answers neither SIP nor AMI here, so no failed login could be tried"
        return [Finding(False, "proof", f"{why}; see: asterisk -rx 'pjsip show transports'")]
    after = before
    deadline = time.monotonic() + wait
    expected = {source["name"] for source in after["sources"]} - (
        {WIRE} if contained or not target.challenges else set()
    )
    while not expected <= _grown(before, after) and time.monotonic() < deadline:
        time.sleep(_PAUSE)
        after = control.ask(path, "status")
    grown = _grown(before, after)
    sender = "this host itself" if contained or not target.challenges else "a loopback address"
    return [
        Finding(True, "proof", f"a failed login at {target}, from {sender}, which is never banned"),
        *(
            _source_finding(source, seen=source["name"] in grown, expected=source["name"] in expected)
            for source in after["sources"]
        ),
    ]


def _source_finding(source: Mapping[str, Any], *, seen: bool, expected: bool) -> Finding:
    if seen:
        return Finding(True, source["name"], "reported the failed login")
    if not expected and source["state"] == _LISTENING:
        why = "listens; no SIP challenge of the failed login leaves this host, so it has nothing to report"
        return Finding(None, source["name"], why)
    state = f"{source['state']}: {source['detail']}" if source["detail"] else source["state"]
    return Finding(False, source["name"], f"did not report the failed login ({state}); see: ringfence check")


def _grown(before: Report, after: Report) -> set[str]:
    """Return the names of the sources whose count is higher in ``after`` than in ``before``.

    Both are answers of the daemon to ``status``. The lines of a log that the daemon skips, because AMI has
    delivered the same events, count too.
    """
    known = {source["name"]: _count(source) for source in before["sources"]}
    return {source["name"] for source in after["sources"] if _count(source) > known.get(source["name"], 0)}


def _count(source: Mapping[str, Any]) -> int:
    return int(source["events"]) + int(source.get("skipped", 0))
