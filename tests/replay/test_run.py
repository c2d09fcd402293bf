"""The past judged: who would have been banned, when, and who was hurt, whoever tells it and in what order."""

import gc
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.replay.logs import (
    FAILED,
    START,
    SUCCESS,
    UNKNOWN,
    guesses,
    look,
    refused,
    security,
    story,
    unregistered,
)
from tests.support.captures import Capture, captures

from ringfence.detect.networks import NetworkSet
from ringfence.detect.rules import DAY, HOUR, RULES, Rule
from ringfence.replay.account import Row
from ringfence.replay.run import Replay, replay
from ringfence.replay.story import Story

NOBODY = NetworkSet()
APART = {
    "call-id-not-utf8",  # AMI and the security log tell nothing of these two, or not all
    "nonce-not-utf8",
    "esc-and-not-utf8",  # nor of this one, and the notices blame a stranger
    "esc-forges-security",  # the log shows another Call-ID than AMI
    "retransmitted-answer",  # the notices do not show that it is one
}
# Of chan_sip's attempts only the wire knows whose they are.
TOLD = [c for c in captures() if c.attempts and "16" not in c.group and c.name not in APART]


def rows_of(past: Replay) -> dict[str, Row]:
    """Give the rows by their names."""
    return {row.name: row for row in past.accounts}


def told(
    folder: Path,
    *logs: bytes,
    never: NetworkSet = NOBODY,
    beside: int = 0,
    rules: tuple[Rule, ...] = RULES,
) -> Replay:
    """Judge logs, each of which is a source of its own."""
    stories = [story(look(folder, f"log-{n}", log), f"log:{n}") for n, log in enumerate(logs)]
    return replay(stories, rules, never, beside=beside)


def same(one: Replay, other: Replay) -> bool:
    """Say whether two runs came to the same."""
    names = ("lines", "events", "attempts", "tampered", "first", "last", "read")
    numbers = all(getattr(one, name) == getattr(other, name) for name in names)
    return numbers and rows_of(one) == rows_of(other)


def test_the_fifth_attempt_within_ten_minutes_is_a_ban(tmp_path: Path) -> None:
    """Of who makes them slower it is none; everything is counted."""
    quick, slow = guesses(7, START, "192.0.2.1", 10), guesses(7, START, "192.0.2.2", 200)
    past = told(tmp_path, quick + slow)
    rows = rows_of(past)
    assert (rows["192.0.2.1"].banned_at_attempt, rows["192.0.2.1"].rule) == (5, "guess")
    assert rows["192.0.2.1"].bans == pytest.approx((START + 40.001,))
    assert (rows["192.0.2.2"].banned_at_attempt, rows["192.0.2.2"].rule) == (None, None)
    assert (rows["192.0.2.1"].attempts, rows["192.0.2.1"].events) == (7, 14)
    assert (past.lines, past.events, past.attempts, past.tampered) == (28, 28, 14, 0)
    assert (past.first, past.last) == (START + 0.001, START + 1200.001)


def test_a_ban_holds_for_its_length_and_longer_on_return(tmp_path: Path) -> None:
    """What comes while it lasts leads to no other; later it counts again, and is a ban of six hours."""
    log = guesses(20, START, every=60) + guesses(10, START + HOUR + 300) + guesses(30, START + 3 * HOUR)
    row = rows_of(told(tmp_path, log))["192.0.2.7"]
    assert row.bans == pytest.approx((START + 240.001, START + HOUR + 304.001))
    later = guesses(5, START + HOUR + 304 + 6 * HOUR + 1)
    assert len(rows_of(told(tmp_path, log + later))["192.0.2.7"].bans) == 3


def test_phones_that_would_have_been_hurt(tmp_path: Path) -> None:
    """Who logs in after his ban would have begun; of an IPv6 /64, anybody there."""
    log = (
        guesses(6, START, "192.0.2.1")
        + guesses(6, START, "192.0.2.2")
        + guesses(6, START, "2001:db8::1")
        + security(SUCCESS, START - 10, "192.0.2.2")
        + security(SUCCESS, START + 10, "192.0.2.1")
        + security(SUCCESS, START + 10, "2001:db8::abcd")
        + security(SUCCESS, START + 10, "192.0.2.3")
    )
    rows = rows_of(told(tmp_path, log))
    assert {name for name, row in rows.items() if row.later_succeeded} == {"192.0.2.1", "2001:db8::/64"}
    assert (rows["192.0.2.3"].attempts, rows["192.0.2.3"].events) == (0, 1)


def test_a_tampered_success_hurts_nobody(tmp_path: Path) -> None:
    """Whoever writes a success into his name is no phone."""
    forged = security(SUCCESS, START + 10).replace(b'AccountID="', b'AccountID="x",RemoteAddress="')
    past = told(tmp_path, guesses(6) + forged)
    assert past.tampered == 1
    assert not rows_of(past)["192.0.2.7"].later_succeeded


def test_who_is_never_banned(tmp_path: Path) -> None:
    """He is counted, and said to be; nothing follows."""
    past = told(tmp_path, guesses(20), never=NetworkSet([ip_network("192.0.2.0/24")]))
    row = rows_of(past)["192.0.2.7"]
    assert (row.attempts, row.allowed, row.bans) == (20, True, ())


def test_other_thresholds(tmp_path: Path) -> None:
    """The rules are those that are given."""
    rules = (evolve(RULES[0], attempts=3, window=5.0, ban=(DAY,)),)
    past = replay([story(look(tmp_path, "log", guesses(9)))], rules, NOBODY)
    assert rows_of(past)["192.0.2.7"].banned_at_attempt == 3


def test_a_log_of_chan_sips_notices_bans(tmp_path: Path) -> None:
    """They name the true source."""
    log = b"".join(unregistered(START + n) for n in range(6))
    assert rows_of(told(tmp_path, log))["192.0.2.7"].banned_at_attempt == 5


def test_a_log_of_pjsips_notices_bans_nobody(tmp_path: Path) -> None:
    """A sender can write another's address into them: they are listed, also beside what is sure."""
    log = b"".join(refused(START + n) for n in range(9))
    row = rows_of(told(tmp_path, log))["192.0.2.7"]
    assert (row.attempts, row.withheld, row.bans) == (9, 9, ())
    both = told(tmp_path, log + guesses(1, START + 100, "192.0.2.8"))
    assert rows_of(both)["192.0.2.7"] == row


def mixed(number: int = 400) -> bytes:
    """Give a log whose second witness comes late."""
    both = b"".join(
        security(FAILED, START + n, session=f"s{n}") + refused(START + n + 0.01, session=f"s{n}")
        for n in range(20)
    )
    return guesses(number, START - 1000, "192.0.2.8") + both


@pytest.mark.parametrize("beside", [0, 1])
def test_a_second_witness_that_comes_late(tmp_path: Path, beside: int) -> None:
    """What a log's two kinds of lines tell of the same attempt counts once, from the first line on."""
    past = told(tmp_path, mixed(), beside=beside)
    assert (past.attempts, past.lines, past.events) == (420, 840, 840)
    assert rows_of(past)["192.0.2.7"].attempts == 20
    assert past.read == len(mixed())


@pytest.mark.parametrize("beside", [1, 2, 3])
def test_processes_change_nothing(tmp_path: Path, beside: int) -> None:
    """However many there are, everything comes out the same."""
    logs = (
        b"".join(guesses(40, START + n * 7, f"192.0.2.{n}") for n in range(60)) + mixed(),
        b"".join(unregistered(START + n / 10, f"198.51.100.{n % 90}") for n in range(9000)),
    )
    for log in logs:
        assert same(told(tmp_path, log, beside=beside), told(tmp_path, log))
    assert same(told(tmp_path, *logs, beside=beside), told(tmp_path, *logs))


def test_the_order_of_the_files_changes_nothing(tmp_path: Path) -> None:
    """Sources are merged by their times: who is named first is no matter."""
    stories = [
        story(look(tmp_path, name, log), f"log:{name}")
        for name, log in {
            "security": b"".join(security(FAILED, START + n, session=f"s{n}") for n in range(30)),
            "messages": b"".join(refused(START + n + 0.2, session=f"s{n}") for n in range(30)),
            "other": b"".join(security(UNKNOWN, START + n, "192.0.2.9") for n in range(30)),
        }.items()
    ]
    past = replay(stories, RULES, NOBODY)
    assert {name: row.attempts for name, row in rows_of(past).items()} == {"192.0.2.7": 30, "192.0.2.9": 30}
    assert same(past, replay(stories[::-1], RULES, NOBODY))


def test_a_clock_that_was_set_back(tmp_path: Path) -> None:
    """An hour that comes twice is an hour of attempts each time, and nothing waits for it to pass."""
    log = b"".join(unregistered(START + n * 200, "192.0.2.1") for n in range(9))
    past = told(tmp_path, log + log + mixed())
    assert rows_of(past)["192.0.2.1"].bans == ()
    assert rows_of(past)["192.0.2.7"].attempts == 20


def test_nothing_to_tell(tmp_path: Path) -> None:
    """An empty file is a past without events."""
    past = told(tmp_path, b"")
    assert (past.lines, past.events, past.attempts, [*past.accounts]) == (0, 0, 0, [])


def test_progress_is_told(tmp_path: Path) -> None:
    """In bytes of the files as they lie there, up to all of them; collecting garbage goes on afterwards."""
    seen: list[int] = []
    file = look(tmp_path, "log", guesses(2000))
    replay([story(file)], RULES, NOBODY, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == file.size
    assert gc.isenabled()


def stories_of(folder: Path, capture: Capture, number: int) -> Sequence[Story]:
    """Give AMI, the security log and the messages of a recording as sources of one PBX."""
    paths = {"ami": capture.ami, "log:security": capture.security_log, "log:messages": capture.messages_log}
    return [
        story(look(folder, f"{path.name}-{number}", path.read_bytes()), witness)
        for witness, path in paths.items()
    ]


@pytest.mark.parametrize("capture", TOLD, ids=str)
def test_recordings_of_real_servers(tmp_path: Path, capture: Capture) -> None:
    """AMI alone, the security log alone, and all together tell of the attempts made, and of who made them."""
    ami, log, messages = stories_of(tmp_path, capture, 0)
    for stories in ([ami], [log], [ami, log, messages], [messages, log, ami]):
        past = replay(stories, RULES, NOBODY)
        sure = {name: row.attempts - row.withheld for name, row in rows_of(past).items()}
        told_of = {name: number for name, number in sure.items() if number}
        assert told_of == ({str(capture.source): capture.attempts} if past.events else {})


TIMES = st.lists(st.tuples(st.integers(0, 5), st.floats(0.001, 300)), max_size=80)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(steps=TIMES)
def test_bans_are_those_of_a_list(tmp_path: Path, steps: list[tuple[int, float]]) -> None:
    """Whoever comes whenever: five within ten minutes are a ban, counted by hand."""
    time, log = START, b""
    expected: dict[int, list[float]] = {}
    recent: dict[int, list[float]] = {}
    held: dict[int, float] = {}
    for who, later in steps:
        time = round(time + later, 3)
        log += security(FAILED, time, f"192.0.2.{who}")
        if held.get(who, 0) > time:
            continue
        recent[who] = [at for at in recent.get(who, []) if time - at < 600] + [time]
        if len(recent[who]) == 5:
            bans = expected.setdefault(who, [])
            held[who] = time + RULES[0].ban_for(len(bans))
            bans.append(time)
            recent[who] = []
    past = told(tmp_path, log, rules=RULES[:1])
    assert {row.name: [*row.bans] for row in past.accounts if row.bans} == {
        f"192.0.2.{who}": pytest.approx(bans) for who, bans in expected.items()
    }
    assert past.attempts == len(steps)
