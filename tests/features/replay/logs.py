"""Logs and recordings as files, with the least text that a test needs."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from ringfence.features.replay.files import File, ReplayInput, inspect
from ringfence.values.event import SourceId

START = 1795154722.0  # 2026-11-20 06:05:22 UTC
UNKNOWN = "InvalidAccountID"
FAILED = "ChallengeResponseFailed"
CHALLENGE = "ChallengeSent"
SUCCESS = "SuccessfulAuth"
_DETAILS = {
    UNKNOWN: "",
    FAILED: ',Challenge="c{0}",Response="r{0}",ExpectedResponse=""',
    CHALLENGE: ',Challenge=""',
    SUCCESS: ',UsingPassword="1"',
}


def stamp(time: float) -> str:
    """Format a time as in a log."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def security(
    kind: str, time: float = START, address: str = "192.0.2.7", session: object = "", service: str = "PJSIP"
) -> bytes:
    """Return a SECURITY line; each has a session of its own by default."""
    session = session or f"{time}{address}"
    version = 6 if ":" in address else 4
    tv = stamp(time).replace(" ", "T") + "+0000"
    return (
        f'[{stamp(time)}] SECURITY[7] res_security_log.c: SecurityEvent="{kind}",EventTV="{tv}",'
        f'Severity="Error",Service="{service}",EventVersion="1",AccountID="alice",SessionID="{session}",'
        f'LocalAddress="IPV4/UDP/198.18.0.1/5060",RemoteAddress="IPV{version}/UDP/{address}/5060"'
        f"{_DETAILS[kind].format(time)}\n"
    ).encode()


def refused(time: float = START, address: str = "192.0.2.7", session: object = "") -> bytes:
    """Return a NOTICE of PJSIP that corresponds to ``FAILED``."""
    session = session or f"{time}{address}"
    return (
        f"[{stamp(time)}] NOTICE[7] res_pjsip/pjsip_distributor.c: Request 'REGISTER' from '<sip:a@h>' "
        f"failed for '{address}:5060' (callid: {session}) - Failed to authenticate\n"
    ).encode()


def unregistered(time: float = START, address: str = "192.0.2.7") -> bytes:
    """Return a NOTICE of chan_sip."""
    return (
        f"[{stamp(time)}] NOTICE[7] chan_sip.c: Registration from '<sip:a@h>' failed for '{address}:5060' - "
        "Wrong password\n"
    ).encode()


def guesses(number: int, start: float = START, address: str = "192.0.2.7", every: float = 1.0) -> bytes:
    """Return the lines of this number of wrong passwords."""
    times = [start + every * n for n in range(number)]
    return b"".join(
        security(CHALLENGE, time, address) + security(FAILED, time + 0.001, address, f"{time}{address}")
        for time in times
    )


def file(folder: Path, name: str, data: bytes) -> Path:
    """Write a file."""
    path = folder / name
    path.write_bytes(data)
    return path


def inspected(folder: Path, name: str, data: bytes) -> File:
    """Write a file, and inspect it."""
    return inspect(file(folder, name, data), UTC)


def replay_input(files: File | Iterable[File], witness: str = "log:x") -> ReplayInput:
    """Return a source that consists of some files."""
    together = (files,) if isinstance(files, File) else tuple(files)
    return ReplayInput(SourceId("pbx", witness), together, UTC)
