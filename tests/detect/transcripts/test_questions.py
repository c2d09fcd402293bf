"""Transcripts: requests without credentials, and the guesses that follow some of them."""

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
from tests.support.transcript import Entry, Player, Step, at

from ringfence.model import Transport


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


def test_the_reason_of_a_guess_that_led_to_a_ban_changes_nothing() -> None:
    """AMI's report of the fifth guess comes after the ban."""
    guard = Player()
    bans: list[str] = []
    for number in range(5):
        bans = guard.play(at(float(number), *guess(number, "100")[0])).bans
    assert bans == ["guess bans 192.0.2.7/32 in full after 5"]
    assert guard.play(at(4.1, *guess(4, "100")[1])).bans == []


def test_a_wrong_answer_of_another_account_is_no_enumeration() -> None:
    """AMI names an account that exists, so the account of the question in the same session means nothing."""
    guard = Player()
    for number in range(3):
        wire, _ = guess(number, "204")
        wrong = failed(call=b"call-%d" % number, nonce=b"n%d" % number)
        question = probed(call=b"call-%d" % number, account="x", method="")
        assert guard.play(at(float(number), *wire), at(number + 0.1, question, wrong)).bans == []


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
