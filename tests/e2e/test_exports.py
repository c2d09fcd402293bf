"""Guesses by TLS and WSS that Asterisk's events hide, seen in Asterisk's own export of its messages (HEP)."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve
from tests.e2e.test_uncounted import HIDDEN, PAUSE, THRESHOLD
from tests.support import open_pbx
from tests.support.asterisk_files import PASSWORD
from tests.support.daemon import until
from tests.support.guarded import NO_LOGS, SharedGuard, end_shared, guarded, shared
from tests.support.lab import Lab
from tests.support.sip_raw import Raw, calling, guesses
from tests.support.sip_wire import status_of

pytestmark = pytest.mark.asterisk

HEP = {"enabled": True}
BY = pytest.mark.parametrize(("transport", "host"), [("TLS", 1), ("WSS", 2)])


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Yield an Asterisk 22 that exports its messages."""
    with Lab.made("22", open_pbx.exporting("22")) as made:
        yield made
        end_shared(made)


def exported(guard: SharedGuard) -> int:
    """Return how many messages have arrived."""
    return sum(source.get("exported", 0) for source in guard.ask("status")["sources"])


@BY
@pytest.mark.parametrize("backend", ["ipset", pytest.param("nftables", marks=pytest.mark.long)])
def test_hidden_guesses_end(lab: Lab, tmp_path: Path, transport: str, host: int, backend: str) -> None:
    """Without the log, five guesses whose Call-ID is not UTF-8 cause a full ban, and no more is answered."""
    source = f"198.19.{95 + (backend == 'ipset')}.{host}"
    with guarded(lab, tmp_path, logs=NO_LOGS, hep=HEP, firewall={"backend": backend}) as guard:
        with calling(lab, source, transport) as caller:
            answers = guesses(caller, Raw(call_id=HIDDEN), THRESHOLD, seconds=5.0)
            # Asterisk exports an answer before it sends it. On a busy machine the ban can overtake the fifth.
            assert answers in ([401] * THRESHOLD, [401] * (THRESHOLD - 1))
            until(lambda: source in guard.banned(), "the ban")
            assert not caller.guess(Raw(call_id=HIDDEN), "wrong", 1.0)
        assert len(guard.attempts_of(source)) == THRESHOLD
        assert guard.scopes() == {source: "sip"}


@BY
def test_a_login_is_no_attempt(lab: Lab, transport: str, host: int) -> None:
    """A stranger with the right password logs in again and again, and makes no attempt."""
    source = f"198.19.97.{host}"
    with shared(lab, logs=NO_LOGS, hep=HEP) as guard:
        before = exported(guard)
        for _ in range(8):
            with calling(lab, source, transport) as caller:
                assert caller.guess(Raw(), PASSWORD) == 200
        until(lambda: exported(guard) >= before + 8, "the export")
        assert guard.attempts_of(source) == []
        assert source not in guard.banned()


@BY
def test_reported_guesses_count_once(lab: Lab, transport: str, host: int) -> None:
    """Guesses that AMI and the export both show count once each."""
    source = f"198.19.98.{host}"
    with shared(lab, logs=NO_LOGS, hep=HEP) as guard:
        with calling(lab, source, transport) as caller:
            assert guesses(caller, Raw(), 3, seconds=10.0, pause=PAUSE) == [401] * 3
        until(lambda: len(guard.attempts_of(source)) >= 3, "the attempts")
        assert len(guard.attempts_of(source)) == 3
        assert {attempt["proof"] for attempt in guard.attempts_of(source)} == {"handshake"}


@BY
def test_an_exported_guess_is_not_unexplained_too(lab: Lab, transport: str, host: int) -> None:
    """A hidden guess that the export shows counts once, although AMI reports nothing of its answer."""
    source = f"198.19.101.{host}"
    with shared(lab, logs=NO_LOGS, hep=HEP) as guard:
        with calling(lab, source, transport) as caller:
            challenge = caller.challenged(Raw())  # an event explains this answer
            assert challenge is not None
            for number in range(3):
                request = Raw(call_id=HIDDEN).answering(challenge, f"wrong-{number}")
                assert status_of(caller.ask(request) or b"") == 401
        until(lambda: len(guard.attempts_of(source)) >= 3, "the attempts")
        time.sleep(2.0)
        kinds = [attempt["kind"] for attempt in guard.attempts_of(source)]
        assert kinds == ["guess"] * 3


def test_answers_to_asterisk_blame_nobody(lab: Lab) -> None:
    """A stranger sends Asterisk answers that look like Asterisk's, and no address is blamed."""
    source, victim = "198.19.99.1", "198.19.99.2"
    with shared(lab, logs=NO_LOGS, hep=HEP) as guard:
        with calling(lab, victim, "TLS") as other, calling(lab, source, "TLS") as caller:
            challenge = other.ask(Raw())
            assert challenge is not None
            before = exported(guard)
            for _ in range(10):
                caller.send_bytes(challenge)
            until(lambda: exported(guard) >= before + 10, "the export")
        assert guard.attempts_of(source) == guard.attempts_of(victim) == []
        assert guard.banned() == set()


def test_a_suppressed_export_is_reported(lab: Lab) -> None:
    """A Call-ID of 33 kB keeps Asterisk from exporting the request and its answer."""
    source = "198.19.100.1"
    request = evolve(Raw(), call_id=b"x" * 33_000 + b"{}")
    with shared(lab, logs=NO_LOGS, hep=HEP) as guard:
        with calling(lab, source, "TLS") as caller:
            # So long a request counts like many. Its sender may be banned before the second answer.
            assert caller.guess(request, "wrong", 3.0) in (0, 401)
        until(lambda: "hep.missing" in guard.alarm_codes(), "the alarm")
