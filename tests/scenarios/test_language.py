"""The language of the scenarios: lines that are not wholly understood are rejected, differences are shown."""

import re

import pytest
from tests.scenarios.deeds import Verb
from tests.scenarios.language import Scenario, TranscriptError, read
from tests.scenarios.playing import DivergenceError, play
from tests.scenarios.words import clock_text, duration_from, duration_text

from ringfence.values.event import Service, Transport

HEAD = "accounts: 200 to 249\nattacker is 203.0.113.5\n"
A_GUESS = "10:00:00  attacker fails as 204, 6 times\n"
ITS_BAN = "          => ban of attacker by guess for 1 h, after 5 attempts\n"


def scenario(text: str) -> Scenario:
    """Parse a text behind the head."""
    return read("written", HEAD + text)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("attacker fails as 204", 3, "neither a time"),
        ("attacker is 203.0.113.6", 3, "has an address already"),
        ("other is nowhere", 3, "nowhere"),
        ("sources: AMI, hearsay", 3, "the sources of a PBX are AMI, log, wire"),
        ("accounts: 249 to 200", 3, "from one number to a higher one"),
        ("accounts: two words", 3, "is no account"),
        ("configuration:\nrules = 1", 3, "stands below"),
        ("configuration:\n    [rules", 3, "Expected"),
        (A_GUESS + "configuration:\n    [a]\n    b = 1", 4, "before the first time"),
        ("          => nothing", 3, "nothing that this could follow"),
        (A_GUESS + "          nothing", 4, "behind =>"),
        (A_GUESS + "attacker is 203.0.113.6", 4, "no time"),
        (A_GUESS + "09:59:59  attacker fails as 204", 4, "time goes on"),
        ("25:00:00  attacker fails as 204", 3, "neither a time"),
        ("10:00:00 attacker fails as 204", 3, "neither a time"),
        ("10:00:00  attacker sings as 204", 3, "how to do this"),
        ("10:00:00  stranger fails as 204", 3, "'stranger' is neither"),
        ("10:00:00  203.0.113.0/24 fails as 204", 3, "say how many"),
        ("10:00:00  300 addresses of 203.0.113.0/24 fail as 204", 3, "not so many"),
        ("10:00:00  attacker fails as 204, loudly", 3, "'loudly' says nothing"),
        ("10:00:00  attacker fails as 204, 5 times, 6 times", 3, "what was said before"),
        ("10:00:00  attacker fails as 204, 1 000 000 times", 3, "between 1 and"),
        ("10:00:00  attacker fails as 204, every 5 years", 3, "says nothing"),
        ("10:00:00  attacker scans 204, by AMI", 3, "nobody tells of it"),
        ("10:00:00  attacker fails as 204, naming 192.0.2.9 in a Via", 3, "by SIP"),
        ("10:00:00  forged attacker fails as 204, over TCP", 3, "over UDP alone"),
        ("10:00:00  attacker registers as 999", 3, "no account of this PBX"),
        (A_GUESS + "          => ban of nobody by guess for 1 h", 4, "'nobody' is neither"),
        (A_GUESS + "          => ban of attacker by guess", 4, "whether this has followed"),
        (A_GUESS + "          => luck", 4, "whether this has followed"),
        ("# nothing\n", None, "nothing happens"),
        ("10:00:00  => nothing\n", None, "nothing happens"),
    ],
)
def test_nonsense_is_refused_with_its_line(text: str, line: int | None, words: str) -> None:
    """The error names the line, and its text explains what to write."""
    with pytest.raises(TranscriptError) as refused:
        scenario(text)
    where = "written.scenario:" if line is None else f"written.scenario, line {line}:"
    assert str(refused.value).startswith(where)
    assert words in str(refused.value)


def test_a_line_has_actor_action_and_number() -> None:
    """A line is read in the order of its words; by default it is done once, by PJSIP over UDP."""
    [step] = scenario("day 2 10:00  3 addresses of 198.18.0.0/16 fail as 204 and 7 to 9, 2 times each").steps
    assert step.deed is not None
    assert step.time == 86_400 + 36_000
    assert [str(address) for address in step.deed.addresses] == ["198.18.0.1", "198.18.0.2", "198.18.0.3"]
    assert step.deed.accounts == ("204", "7", "8", "9")
    assert (step.deed.verb, step.deed.number, step.deed.every) == (Verb.FAILS, 6, 1.0)
    assert (step.deed.service, step.deed.transport) == (Service.PJSIP, Transport.UDP)


@pytest.mark.parametrize(
    ("who", "addresses"),
    [
        ("2 addresses spread over 198.18.0.0/16", ["198.18.0.1", "198.18.128.1"]),
        ("2 addresses of 192.0.2.0/31", ["192.0.2.0", "192.0.2.1"]),
        ("2 /64s of 2001:db8::/48", ["2001:db8::1", "2001:db8:0:1::1"]),
        ("forged attacker", ["203.0.113.5"]),
    ],
)
def test_many_addresses_have_one_word(who: str, addresses: list[str]) -> None:
    """Many addresses are the first of a network, or spread over it, or a host in each /64."""
    [step] = scenario(f"10:00  {who} scans 204").steps
    assert step.deed is not None
    assert [str(address) for address in step.deed.addresses] == addresses
    assert step.deed.forged is who.startswith("forged")


def test_for_so_long_is_so_often() -> None:
    """``every 5 s for 1 min`` is twelve times, and ``at once`` leaves no time in between."""
    slow, quick = scenario(
        "10:00  attacker fails as 204, every 5 s for 1 min\n11:00  attacker fails as 204, 9 times, at once"
    ).steps
    assert slow.deed is not None
    assert quick.deed is not None
    assert (slow.deed.number, slow.deed.every) == (12, 5.0)
    assert (quick.deed.number, quick.deed.every, quick.deed.at_once) == (9, 0.0, True)


@pytest.mark.parametrize("text", ["10 ms", "5 s", "150 s", "10 min", "1 h", "7 d"])
def test_durations_are_written_as_they_are_read(text: str) -> None:
    """A duration is written in the largest unit of which it is a whole number."""
    assert duration_from(duration_text(duration_from(text))) == duration_from(text)


def test_times_are_written_as_they_are_read() -> None:
    """A time has the day from the second one on, and parts of a second where there are any."""
    assert [clock_text(time) for time in (36_000.0, 36_000.5, 86_400.0)] == [
        "10:00:00",
        "10:00:00.500",
        "day 2 00:00:00",
    ]


def test_what_goes_as_it_is_written_is_silent() -> None:
    """The scenario that the tests below change is right itself."""
    play(scenario(A_GUESS + ITS_BAN))


def shown(text: str) -> str:
    """Return the text that is shown for a wrong transcript."""
    with pytest.raises(DivergenceError) as different:
        play(scenario(text))
    return str(different.value)


def test_a_missing_outcome_is_marked_at_its_line() -> None:
    """The wrong line is marked, below the lines so far and above what happened instead."""
    said = shown(A_GUESS + ITS_BAN.replace("5 attempts", "4 attempts"))
    assert said.split("\n") == [
        "written.scenario goes another way in line 4:",
        "     1 | accounts: 200 to 249",
        "     2 | attacker is 203.0.113.5",
        "     3 | 10:00:00  attacker fails as 204, 6 times",
        "!!   4 |           => ban of attacker by guess for 1 h, after 4 attempts",
        "       ^ did not follow",
        "++     | 10:00:04  => ban of attacker by guess for 1 h, after 5 attempts",
        "       ^ happened, and is not written",
    ]


@pytest.mark.parametrize("outcome", ["", "          => no ban\n", "          => nothing\n"])
def test_what_is_not_written_must_not_happen(outcome: str) -> None:
    """A result that is not written is an error, whether or not the transcript excludes it."""
    said = shown(A_GUESS + outcome + "11:30:00  attacker fails as 204\n")
    assert "++     | 10:00:04  => ban of attacker by guess for 1 h, after 5 attempts" in said
    assert "11:30:00" not in said


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("by guess for 2 h", "did not follow"),
        ("by slow for 1 h", "did not follow"),
        ("by guess for 1 h, UDP to the SIP ports", "did not follow"),
    ],
)
def test_every_word_of_a_ban_is_compared(wrong: str, told: str) -> None:
    """The rule, the length and the scope of a ban are compared."""
    said = shown(A_GUESS + ITS_BAN.replace("by guess for 1 h", wrong))
    assert f"       ^ {told}" in said


def test_so_many_bans_are_counted() -> None:
    """Bans of a network's addresses are counted, and the error states how many there were."""
    three = "10:00:00  3 addresses of 203.0.113.0/24 fail as 204, every 10 s, 5 times each\n"
    bans = "          => {} bans in 203.0.113.0/24 by guess for 1 h, after 5 attempts\n"
    play(scenario(three + bans.format(3)))
    assert "       ^ 3 of 4" in shown(three + bans.format(4))


@pytest.mark.parametrize(
    ("standing", "told"),
    [
        ("attacker is not banned", "is banned"),
        ("203.0.113.6 is banned", "is not"),
        ("3 attempts late", "they are 2"),
    ],
)
def test_how_it_stands_is_asked_before_the_next_line(standing: str, told: str) -> None:
    """States are examined before the next line: bans, and the attempts that were late when the ban began."""
    sent = A_GUESS.replace("6 times", "7 times, at once")
    said = shown(f"{sent}{ITS_BAN}          => {standing}\n")
    assert f"       ^ {told}" in said


def test_a_later_line_does_not_hide_an_earlier_fault() -> None:
    """Lines that continue at the same time are distinguished by the times of their results."""
    text = "10:00:00  attacker fails as 204, every 1 min, 3 times\n" + A_GUESS.replace("10:00:00", "10:00:30")
    said = shown(text + ITS_BAN.replace("5 attempts", "6 attempts"))
    assert re.search(r"\+\+     \| 10:00:3\d  => ban of attacker by guess for 1 h, after 5 attempts", said)


def test_without_a_source_nothing_is_reported() -> None:
    """A guest's call to an unknown extension appears in the log alone, so without it nothing follows."""
    calls = "10:00:00  attacker calls a number that does not exist, over TCP, 3 times\n"
    play(scenario("sources: AMI, wire\n" + calls))
    ban = ITS_BAN.replace("guess", "probe").replace("1 h", "10 min").replace("5", "3")
    play(scenario("sources: AMI, log\n" + calls + ban))


@pytest.mark.parametrize(
    ("standing", "told"),
    [
        ("10:00:30  => attacker is a friend", "is not"),
        ("10:00:30  => 198.51.100.7 is no friend", "is a friend"),
        ("10:00:30  => alarm attack.distributed is active", "0 are active"),
        ("11:30:00  => attacker is banned", "is not"),
    ],
)
def test_a_time_without_a_deed_asks_how_it_stands_then(standing: str, told: str) -> None:
    """The state is that at the time of the line, and not an earlier or later one."""
    friend = "09:00:00  198.51.100.7 has a contact of 204\n"
    said = shown(f"{friend}{A_GUESS}{ITS_BAN}{standing}\n15:00:00  attacker fails as 204\n")
    assert f"       ^ {told}" in said


def test_alarms_are_compared_by_subject() -> None:
    """An alarm is compared with its subject, in which names stand for addresses, and differs if it clears."""
    wrong = "198.51.100.7 registers as 204\n10:00:00  198.51.100.7 fails as 204\n"
    alarm = "          => alarm phone.broken for 204 at {}\n"
    play(scenario(f"office is 198.51.100.7\n09:00:00  {wrong}{alarm.format('office')}"))
    for other in (alarm.format("attacker"), alarm.format("198.51.100.7 clears")):
        assert "=> alarm phone.broken for 204 at 198.51.100.7" in shown(f"09:00:00  {wrong}{other}")


def test_a_trunk_is_a_friend_from_the_start() -> None:
    """A trunk is a friend from the start, as a server is at which the PBX registers."""
    play(scenario("trunk: attacker\n" + A_GUESS + "          => attacker is a friend\n"))
