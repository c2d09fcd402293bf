"""The replay: bans, their times, and wrong bans, for any number and order of sources."""

import gc
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.features.replay.logs import (
    FAILED,
    START,
    SUCCESS,
    guesses,
    inspected,
    refused,
    replay_input,
    security,
    unregistered,
)
from tests.support.captures import Capture, captures

from ringfence.detect.rules import DAY, HOUR, RULES, Rule
from ringfence.features.replay.files import ReplayInput
from ringfence.features.replay.run import AddressOutcome, Replay, replay
from ringfence.values.network import NetworkSet

NOBODY = NetworkSet()
APART = {
    "call-id-not-utf8",  # AMI and the security log do not contain these two, or not all of them
    "nonce-not-utf8",
    "esc-and-not-utf8",  # nor this one, and the notices name a forged address
    "esc-forges-security",  # the log shows another Call-ID than AMI
    "retransmitted-answer",  # the notices do not identify it as one attempt
}
# Only the wire shows the true sender of these chan_sip attempts.
TOLD = [c for c in captures() if c.attempts and "16" not in c.group and c.name not in APART]


def rows_of(past: Replay) -> dict[str, AddressOutcome]:
    """Return the outcomes by name."""
    return {row.name: row for row in past.outcomes}


def replayed(
    folder: Path,
    *logs: bytes,
    never: NetworkSet = NOBODY,
    rules: tuple[Rule, ...] = RULES,
) -> Replay:
    """Replay logs, each as a source of its own."""
    inputs = [replay_input(inspected(folder, f"log-{n}", log), f"log:{n}") for n, log in enumerate(logs)]
    return replay(inputs, rules, never)


def same(one: Replay, other: Replay) -> bool:
    """Whether two replays have the same results."""
    names = ("lines", "events", "attempts", "tampered", "first", "last", "read")
    numbers = all(getattr(one, name) == getattr(other, name) for name in names)
    return numbers and rows_of(one) == rows_of(other)


def test_the_fifth_attempt_within_ten_minutes_is_a_ban(tmp_path: Path) -> None:
    """Slower attempts cause no ban; everything is counted."""
    quick, slow = guesses(7, START, "192.0.2.1", 10), guesses(7, START, "192.0.2.2", 200)
    past = replayed(tmp_path, quick + slow)
    rows = rows_of(past)
    assert (rows["192.0.2.1"].banned_at_attempt, rows["192.0.2.1"].rule) == (5, "guess")
    assert rows["192.0.2.1"].bans == pytest.approx((START + 40.001,))
    assert (rows["192.0.2.2"].banned_at_attempt, rows["192.0.2.2"].rule) == (None, None)
    assert (rows["192.0.2.1"].attempts, rows["192.0.2.1"].events) == (7, 14)
    assert (past.lines, past.events, past.attempts, past.tampered) == (28, 28, 14, 0)
    assert (past.first, past.last) == (START, START + 1200.001)


def test_a_ban_holds_for_its_length_and_longer_on_return(tmp_path: Path) -> None:
    """Attempts during a ban cause no other; later ones count again, and cause a ban of six hours."""
    log = guesses(20, START, every=60) + guesses(10, START + HOUR + 300) + guesses(30, START + 3 * HOUR)
    row = rows_of(replayed(tmp_path, log))["192.0.2.7"]
    assert row.bans == pytest.approx((START + 240.001, START + HOUR + 304.001))
    later = guesses(5, START + HOUR + 304 + 6 * HOUR + 1)
    assert len(rows_of(replayed(tmp_path, log + later))["192.0.2.7"].bans) == 3


def test_phones_that_would_have_been_hurt(tmp_path: Path) -> None:
    """A login after the start of the ban is marked; in an IPv6 /64, from any address."""
    log = (
        guesses(6, START, "192.0.2.1")
        + guesses(6, START, "192.0.2.2")
        + guesses(6, START, "2001:db8::1")
        + security(SUCCESS, START - 10, "192.0.2.2")
        + security(SUCCESS, START + 10, "192.0.2.1")
        + security(SUCCESS, START + 10, "2001:db8::abcd")
        + security(SUCCESS, START + 10, "192.0.2.3")
    )
    rows = rows_of(replayed(tmp_path, log))
    assert {name for name, row in rows.items() if row.later_succeeded} == {"192.0.2.1", "2001:db8::/64"}
    assert (rows["192.0.2.3"].attempts, rows["192.0.2.3"].events) == (0, 1)


def test_a_tampered_success_is_no_login(tmp_path: Path) -> None:
    """A forged success in a caller's name does not count as a login."""
    forged = security(SUCCESS, START + 10).replace(b'AccountID="', b'AccountID="x",RemoteAddress="')
    past = replayed(tmp_path, guesses(6) + forged)
    assert past.tampered == 1
    assert not rows_of(past)["192.0.2.7"].later_succeeded


def test_exempt_addresses(tmp_path: Path) -> None:
    """An exempt address is counted and marked, and not banned."""
    past = replayed(tmp_path, guesses(20), never=NetworkSet([ip_network("192.0.2.0/24")]))
    row = rows_of(past)["192.0.2.7"]
    assert (row.attempts, row.exempt, row.bans) == (20, True, ())


def test_other_thresholds(tmp_path: Path) -> None:
    """The given rules apply."""
    rules = (evolve(RULES[0], attempts=3, window=5.0, ban=(DAY,)),)
    past = replay([replay_input(inspected(tmp_path, "log", guesses(9)))], rules, NOBODY)
    assert rows_of(past)["192.0.2.7"].banned_at_attempt == 3


def test_a_log_of_chan_sips_notices_bans(tmp_path: Path) -> None:
    """Notices of chan_sip name the true sender, so they lead to bans."""
    log = b"".join(unregistered(START + n) for n in range(6))
    assert rows_of(replayed(tmp_path, log))["192.0.2.7"].banned_at_attempt == 5


def test_a_log_of_pjsips_notices_bans_nothing(tmp_path: Path) -> None:
    """Notices of PJSIP may name a forged address: they are unconfirmed, even along with confirmed ones."""
    log = b"".join(refused(START + n) for n in range(9))
    row = rows_of(replayed(tmp_path, log))["192.0.2.7"]
    assert (row.attempts, row.unconfirmed, row.bans) == (9, 9, ())
    both = replayed(tmp_path, log + guesses(1, START + 100, "192.0.2.8"))
    assert rows_of(both)["192.0.2.7"] == row


def mixed(number: int = 400) -> bytes:
    """Return a log whose second source appears late."""
    both = b"".join(
        security(FAILED, START + n, session=f"s{n}") + refused(START + n + 0.01, session=f"s{n}")
        for n in range(20)
    )
    return guesses(number, START - 1000, "192.0.2.8") + both


def test_a_second_source_that_appears_late(tmp_path: Path) -> None:
    """An attempt in both kinds of a log's lines counts once, from the first line on."""
    past = replayed(tmp_path, mixed())
    assert (past.attempts, past.lines, past.events) == (420, 840, 840)
    assert rows_of(past)["192.0.2.7"].attempts == 20
    assert past.read == len(mixed())


def test_the_order_of_the_files_changes_nothing(tmp_path: Path) -> None:
    """Sources are merged by time, so the order of the arguments does not matter."""
    inputs = [
        replay_input(inspected(tmp_path, name, log), f"log:{name}")
        for name, log in {
            "security": b"".join(security(FAILED, START + n, session=f"s{n}") for n in range(30)),
            "messages": b"".join(refused(START + n + 0.2, session=f"s{n}") for n in range(30)),
            "other": b"".join(security(FAILED, START + n, "192.0.2.9", session=f"o{n}") for n in range(30)),
        }.items()
    ]
    past = replay(inputs, RULES, NOBODY)
    assert {name: row.attempts for name, row in rows_of(past).items()} == {"192.0.2.7": 30, "192.0.2.9": 30}
    assert same(past, replay(inputs[::-1], RULES, NOBODY))


def test_a_clock_that_was_set_back(tmp_path: Path) -> None:
    """A repeated hour counts each time, without a wait until it has passed."""
    log = b"".join(unregistered(START + n * 200, "192.0.2.1") for n in range(9))
    past = replayed(tmp_path, log + log + mixed())
    assert rows_of(past)["192.0.2.1"].bans == ()
    assert rows_of(past)["192.0.2.7"].attempts == 20


def test_an_empty_file(tmp_path: Path) -> None:
    """An empty file has no events."""
    past = replayed(tmp_path, b"")
    assert (past.lines, past.events, past.attempts, [*past.outcomes]) == (0, 0, 0, [])


def test_progress(tmp_path: Path) -> None:
    """Progress counts bytes on disk up to the total size; garbage collection is enabled again afterwards."""
    seen: list[int] = []
    file = inspected(tmp_path, "log", guesses(2000))
    replay([replay_input(file)], RULES, NOBODY, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == file.size
    assert gc.isenabled()


def inputs_of(folder: Path, capture: Capture, number: int) -> Sequence[ReplayInput]:
    """Return AMI, the security log and the messages of a recording as sources of one PBX."""
    paths = {"ami": capture.ami, "log:security": capture.security_log, "log:messages": capture.messages_log}
    return [
        replay_input(inspected(folder, f"{path.name}-{number}", path.read_bytes()), witness)
        for witness, path in paths.items()
    ]


@pytest.mark.parametrize("capture", TOLD, ids=str)
def test_recordings_of_real_servers(tmp_path: Path, capture: Capture) -> None:
    """AMI alone, the security log alone, and all together give the same attempts and senders."""
    ami, log, messages = inputs_of(tmp_path, capture, 0)
    for inputs in ([ami], [log], [ami, log, messages], [messages, log, ami]):
        past = replay(inputs, RULES, NOBODY)
        sure = {name: row.attempts - row.unconfirmed for name, row in rows_of(past).items()}
        told_of = {name: number for name, number in sure.items() if number}
        assert told_of == {str(capture.source): capture.attempts}


TIMES = st.lists(st.tuples(st.integers(0, 5), st.floats(0.001, 300)), max_size=80)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=TIMES)
def test_bans_are_those_of_a_list(tmp_path: Path, steps: list[tuple[int, float]]) -> None:
    """Five attempts within ten minutes are a ban, compared with a simple count for random times."""
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
    past = replayed(tmp_path, log, rules=RULES[:1])
    assert {row.name: [*row.bans] for row in past.outcomes if row.bans} == {
        f"192.0.2.{who}": pytest.approx(bans) for who, bans in expected.items()
    }
    assert past.attempts == len(steps)
