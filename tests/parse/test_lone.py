"""Challenges without another event of their session are dropped, and never a part of an attempt."""

from collections import Counter
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse.corpus import SOURCE

from ringfence.detect.fold import Fold
from ringfence.model import Attempt, SecurityEvent
from ringfence.parse.lone import REMEMBERED, LoneChallenges
from ringfence.parse.many import ManyReader

START = 1795154722.0
DETAILS = {
    "ChallengeSent": ',Challenge=""',
    "ChallengeResponseFailed": ',Challenge="c",Response="r",ExpectedResponse=""',
    "InvalidAccountID": "",
    "SuccessfulAuth": ',UsingPassword="1"',
}


def line(
    kind: str, session: object = "s", *, time: float = START, host: int = 7, service: str = "PJSIP"
) -> bytes:
    """Return a SECURITY line."""
    tv = datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "+0000"
    return (
        f'[2026-11-20 06:05:22] SECURITY[7] res_security_log.c: SecurityEvent="{kind}",EventTV="{tv}",'
        f'Severity="Error",Service="{service}",EventVersion="1",AccountID="a",SessionID="{session}",'
        f'LocalAddress="IPV4/UDP/198.18.0.1/5060",RemoteAddress="IPV4/UDP/192.0.2.{host}/5060"{DETAILS[kind]}\n'
    ).encode()


def read(data: bytes, lone: LoneChallenges | None, size: int = 256 * 1024) -> list[SecurityEvent]:
    """Return the events of a log."""
    reader = ManyReader(SOURCE, lone=lone)
    reported = [one for at in range(0, len(data), size) for one in reader.feed(data[at : at + size], START)]
    return [SecurityEvent(*values) for values in reported + reader.end(START)]


def kinds(*lines: bytes, lone: LoneChallenges | None = None) -> list[str]:
    """Return the kinds of the remaining events."""
    return [event.kind for event in read(b"".join(lines), lone or LoneChallenges())]


def test_a_lone_challenge_is_dropped() -> None:
    """A registration begins with one; the events after it stay."""
    assert kinds(line("ChallengeSent"), line("SuccessfulAuth")) == ["SuccessfulAuth"]
    assert kinds(line("ChallengeSent"), line("ChallengeSent")) == []


def test_a_challenge_within_an_attempt_stays() -> None:
    """After another event of its session it is part of an attempt, in another piece of the log too."""
    lone = LoneChallenges()
    assert kinds(line("InvalidAccountID"), line("ChallengeSent"), lone=lone) == [
        "InvalidAccountID",
        "ChallengeSent",
    ]
    assert kinds(line("ChallengeSent"), line("ChallengeSent", "t"), lone=lone) == ["ChallengeSent"]


def test_under_chan_sip_each_counts() -> None:
    """With chan_sip, a challenge shows that the caller has an account."""
    assert kinds(line("ChallengeSent", service="SIP")) == ["ChallengeSent"]


def test_dropped_challenges_are_counted() -> None:
    """They are counted by address, since the last call."""
    lone = LoneChallenges()
    kinds(*(line("ChallengeSent", n, host=n % 2) for n in range(5)), lone=lone)
    assert Counter({str(address): number for address, number in lone.counted()}) == {
        "192.0.2.0": 3,
        "192.0.2.1": 2,
    }
    assert lone.counted() == []


def test_sessions_are_forgotten() -> None:
    """If the last event of a session is long ago, its next challenge is a beginning."""
    lone = LoneChallenges()
    kinds(line("InvalidAccountID", "s"), lone=lone)
    for n in (1, 2):
        reported = kinds(line("InvalidAccountID", n, time=START + n * REMEMBERED), lone=lone)
        assert reported == ["InvalidAccountID"]
    assert kinds(line("ChallengeSent", "s", time=START + 2 * REMEMBERED), lone=lone) == []


def test_too_many_sessions() -> None:
    """If sessions share their marks, a lone challenge may stay, and no other is dropped."""
    lone = LoneChallenges(marks=1)
    kinds(line("InvalidAccountID", 1), lone=lone)
    assert kinds(line("ChallengeSent", 1), line("ChallengeSent", 2), lone=lone) == ["ChallengeSent"] * 2


EVENTS = st.tuples(
    st.sampled_from(sorted(DETAILS)),
    st.integers(0, 3),
    st.sampled_from([0.0, 0.001, 1.0, 20.0, 33.0, 70.0, -3.0]),
    st.integers(0, 1),
)


@settings(deadline=None)
@given(events=st.lists(EVENTS, max_size=60), size=st.sampled_from([300, 1000, 100_000]))
def test_the_fold_gives_the_same_attempts(events: list[tuple[str, int, float, int]], size: int) -> None:
    """With any events in any order, no attempt is lost and none is added."""
    time, data = START, b""
    for kind, session, later, host in events:
        time += later
        data += line(kind, session, time=time, host=host)

    def attempts(lone: LoneChallenges | None) -> list[Attempt | None]:
        fold = Fold()
        reported = [fold.feed(event, event.time) for event in read(data, lone, size)]
        return [attempt for attempt in reported if attempt is not None]

    assert attempts(LoneChallenges()) == attempts(LoneChallenges(marks=3)) == attempts(None)
