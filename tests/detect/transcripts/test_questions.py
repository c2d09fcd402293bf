"""Transcripts: requests without credentials, and the guesses that follow some of them."""

import pytest
from attrs import evolve
from tests.detect.transcripts.reports import (
    ATTACKER,
    NOTICE,
    challenged,
    copied,
    failed,
    probed,
    sent,
)
from tests.support.transcript import Entry, Player, Step, at, ticks

from ringfence.values.event import SecurityEvent, Transport

SLOW = "slow bans 192.0.2.7/32 by sip-tcp for 600 s after 20"
ENUMERATION = "enumeration bans 192.0.2.7/32 by sip-tcp for 600 s after 3"


def pings(number: int) -> list[Step]:
    """Return the reports of OPTIONS each 29 s: of the wire, AMI and the log."""
    steps = []
    for n in range(number):
        call = b"ping-%d" % n
        steps += [
            at(29.0 * n, copied(call=call, sequence=1), sent(call=call, nonce=b"%d" % n, sequence=1)),
            at(29.0 * n, probed(call=call, account="s", method=""), challenged(call=call)),
            at(29.0 * n + 0.5, probed(call=call, account="s", method="OPTIONS", by=NOTICE, forgeable=True)),
        ]
    return steps


def test_an_hour_of_pings_is_no_attempt() -> None:
    """An SBC that no ``identify`` matches makes no attempt, and its address is named."""
    guard = Player()
    assert guard.play(*pings(124)).attempts == []
    [ping] = guard.pinging()
    assert (str(ping.address), ping.number) == (ATTACKER, 248)


def test_a_call_counts_when_its_notice_names_it() -> None:
    """AMI reports a question, and the notice shows that it was a call: one attempt, of both sources."""
    call = probed(account="100", method="INVITE", by=NOTICE, forgeable=True)
    guard = Player(sources=("AMI", "log"))
    assert guard.play(at(0, probed(account="100", method=""), challenged())).counted == 0
    assert guard.play(at(0.5, call)).counted == 1
    assert guard.play(at(1, probed(account="100", method=""), failed(account="<unknown>"))).counted == 0


def test_a_guess_that_counted_is_no_call_later() -> None:
    """If the notice comes after the wrong answer, the call and the guess are one attempt."""
    call = probed(account="100", method="INVITE", by=NOTICE, forgeable=True)
    guard = Player(sources=("AMI", "log"))
    question = probed(account="100", method="")
    steps = at(0, question, challenged(), question, failed(account="<unknown>")), at(0.5, call, call)
    assert guard.play(*steps).counted == 1


def guess(number: int, account: str) -> tuple[list[Entry], list[Entry]]:
    """Return what the wire and AMI report of a guess at an account that does not exist."""
    call, nonce = b"call-%d" % number, b"n%d" % number
    wire: list[Entry] = [
        *(copied(call=call, sequence=1), sent(call=call, nonce=nonce, sequence=1)),
        copied(call=call, nonce=nonce, sequence=2, registers=account),
        sent(call=call, nonce=b"m%d" % number, sequence=2),
    ]
    question = probed(call=call, account=account, method="")
    wrong = failed(call=call, account="<unknown>", nonce=nonce)
    return wire, [question, challenged(call=call), question, wrong]


def test_guesses_at_unknown_accounts_are_an_enumeration_when_ami_names_the_reason() -> None:
    """The wire reports three guesses first, and AMI's report of the third makes the ban."""
    guard = Player()
    bans: list[str] = []
    for number in range(3):
        assert bans == []
        wire, ami = guess(number, f"{100 + number}")
        happened = guard.play(at(float(number), *wire))
        assert (happened.counted, happened.bans) == (1, [])
        bans = guard.play(at(number + 0.1, *ami)).bans
    assert bans == ["enumeration bans 192.0.2.7/32 in full after 3"]


def test_guesses_behind_calls_of_unknown_accounts_are_an_enumeration_after_their_copies() -> None:
    """AMI counts the call itself, and nothing more of its guess, which came first on the wire."""
    guard = Player()
    bans: list[str] = []
    for number in range(3):
        call, nonce = b"call-%d" % number, b"1/%d" % number
        asked = copied(call=call, nonce=nonce, registers=f"{number}", response=b"r")
        wire = sent(call=call, nonce=nonce, sequence=1), asked, sent(call=call, sequence=2)
        question = probed(call=call, account=f"{number}")
        wrong = failed(call=call, account="<unknown>", nonce=nonce, response=b"r")
        bans += guard.play(at(number, *wire, question, challenged(call=call), question, wrong)).bans
    assert bans == ["enumeration bans 192.0.2.7/32 in full after 3"]


def test_the_reason_of_a_guess_that_led_to_a_ban_changes_nothing() -> None:
    """AMI's report of the fifth guess comes after the ban."""
    guard = Player()
    bans: list[str] = []
    for number in range(5):
        bans = guard.play(at(float(number), *guess(number, "100")[0])).bans
    assert bans == ["guess bans 192.0.2.7/32 by sip after 5"]
    assert guard.play(at(4.1, *guess(4, "100")[1])).bans == []


def test_a_wrong_answer_of_another_account_is_no_enumeration() -> None:
    """AMI names an account that exists, so the account of the question in the same session means nothing."""
    guard = Player()
    for number in range(3):
        wire, _ = guess(number, "204")
        wrong = failed(call=b"call-%d" % number, nonce=b"n%d" % number)
        question = probed(call=b"call-%d" % number, account="x", method="")
        assert guard.play(at(float(number), *wire), at(number + 0.1, question, wrong)).bans == []


def by_tcp(number: int, port: int = 5062) -> SecurityEvent:
    """Return AMI's report of a question for the account ``number`` by TCP."""
    call = b"call-%d" % number
    return probed(call=call, account=f"{number}", method="", transport=Transport.TCP, port=port)


def forged(number: int, method: str = "OPTIONS") -> SecurityEvent:
    """Return a notice about a question for the account ``number``, which anyone can have written."""
    return probed(call=b"f%d" % number, account=f"{number}", method=method, by=NOTICE, forgeable=True)


def test_forged_reports_make_no_questions_count() -> None:
    """A forged notice, forged methods or forged datagrams make no proven ban of a sender that asks by TCP."""
    tenth = at(9, forged(9))
    methods = at(9, *(forged(number, "REGISTER") for number in range(3)))
    spoofed = at(9, *(probed(call=b"s%d" % n, account=f"s{n}", method="") for n in range(7)))
    for number, forgeries in ((9, tenth), (3, methods), (3, spoofed)):
        guard = Player()
        happened = guard.play(at(0, *map(by_tcp, range(number))), forgeries, ticks(10, 20))
        assert [one for one in happened.attempts if "handshake" in one] == []
        assert [one for one in happened.bans if "sip-udp" not in one] == []


@pytest.mark.parametrize(("pause", "ban"), [(67, ENUMERATION), (301, SLOW), (4_000, SLOW)])
def test_a_slow_enumeration_is_banned_within_a_day(pause: float, ban: str) -> None:
    """One account in 67 s stays below ten in ten minutes, and the twentieth counts with all before it."""
    guard = Player(sources=("AMI",))
    assert guard.play(*(at(pause * n, by_tcp(n)) for n in range(19))).counted == 0
    assert guard.play(at(pause * 19, by_tcp(19))).bans == [ban]


def test_a_forged_wrong_answer_settles_no_question() -> None:
    """A notice of a wrong password that the sender has written itself delays no ban."""
    guard = Player()
    for number in range(9):
        call = b"call-%d" % number
        wrong = failed(call=call, account=f"{number}", by=NOTICE, forgeable=True, port=5063)
        steps = at(float(number), by_tcp(number)), at(number + 0.3, wrong)
        assert guard.play(*steps).bans == []
    assert guard.play(at(9, by_tcp(9))).bans == [ENUMERATION]


def test_an_accepted_wrong_answer_of_a_notice_settles_its_question() -> None:
    """If only the log reports, and connections confirm it, three guesses by REGISTER are three attempts."""
    guard = Player(sources=("log",), connected=[(ATTACKER, 5062)])
    for number in range(3):
        call, account = b"call-%d" % number, f"{number}"
        notice = probed(call=call, account=account, method="REGISTER", by=NOTICE, forgeable=True)
        wrong = failed(call=call, account=account, by=NOTICE, forgeable=True)
        steps = [evolve(one, remote=by_tcp(0).remote) for one in (notice, notice, wrong)]
        assert guard.play(at(float(number), *steps)).counted == 1


def test_another_request_of_the_same_call_id_masks_no_call() -> None:
    """An OPTIONS with the Call-ID of a call is copied last, before AMI reports both."""
    for transport in (Transport.UDP, Transport.TCP):
        guard = Player()
        call = evolve(copied(sequence=1, transport=transport), method="INVITE")
        ping = evolve(copied(sequence=2, transport=transport), method="OPTIONS")
        wire: list[Entry] = [
            *(call, ping),
            sent(nonce=b"1", sequence=1, transport=transport),
            sent(nonce=b"2", sequence=2, transport=transport),
        ]
        question = probed(account="100", method="", transport=transport)
        happened = guard.play(at(0, *wire), at(0.01, question, challenged(transport=transport)))
        assert happened.counted == 1


@pytest.mark.parametrize("call", [b"call-0", b"call-2"], ids=["the first account", "the last account"])
def test_a_question_that_counted_is_no_call_later(call: bytes) -> None:
    """Three accounts are an enumeration. A later call in the session of one is a single attempt."""
    guard = Player()
    for n in range(3):
        question = probed(call=b"call-%d" % n, account=f"10{n}", method="REGISTER")
        assert guard.play(at(n, question, challenged(call=question.session))).counted == (3 if n == 2 else 0)
    asked = evolve(copied(call=call), method="INVITE")
    assert guard.play(at(4, asked, sent(call=call, sequence=2))).attempts == []
    again = probed(call=call, account="100", method="INVITE")
    assert len(guard.play(at(4.1, again, challenged(call=call))).attempts) == 1
