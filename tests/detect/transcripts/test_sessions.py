"""Transcripts: how many attempts the reports of one session make."""

import pytest
from tests.detect.transcripts.reports import (
    AMI,
    ATTACKER,
    NOTICE,
    SECURITY,
    challenged,
    failed,
    login,
    probed,
    report,
    sent,
    wrong,
)
from tests.support.transcript import Player, Step, at, ticks

from ringfence.values.event import EventKind, SecurityEvent, Service, Transport


def alone() -> Player:
    """Return a guard that reads AMI alone, so that each report is an attempt."""
    return Player(sources=("AMI",))


def each(guard: Player, *steps: Step) -> list[int]:
    """Return how many attempts each step makes."""
    return [len(guard.play(step).attempts) for step in steps]


def test_a_challenge_alone_is_no_attempt() -> None:
    """A challenge alone is no attempt, since every good registration begins with one."""
    assert alone().play(at(0, challenged()), at(1, challenged())).attempts == []


def test_a_guess_at_an_unknown_account_counts_at_its_first_event() -> None:
    """The challenge that follows completes the same attempt, and so does the wrong answer to it."""
    steps = [at(0, probed()), at(0, challenged()), at(0, failed()), at(1, probed()), at(1, challenged())]
    assert each(alone(), *steps) == [1, 0, 0, 1, 0]


@pytest.mark.parametrize("acl", ["not_match_endpoint_acl", "not_match_endpoint_contact_acl"])
def test_a_refusal_by_an_acl_of_an_endpoint_counts_at_its_first_event(acl: str) -> None:
    """The challenge that follows completes the same attempt, as for an unknown account."""
    refused = report(EventKind.FAILED_ACL, acl=acl, method="INVITE")
    steps = [at(0, refused), at(0, challenged()), at(1, refused), at(1, challenged())]
    assert each(alone(), *steps) == [1, 0, 0, 1]


def test_a_guess_at_a_known_account_counts_when_it_fails() -> None:
    """A guess at a known account counts at its failure and not at its challenge."""
    steps = [at(0, challenged()), at(0, failed()), at(1, challenged()), at(1, failed())]
    assert each(alone(), *steps) == [0, 1, 0, 1]


def test_two_requests_before_an_answer_are_two_attempts() -> None:
    """The second attempt counts when the answer to the first request has come."""
    steps = [at(0, probed()), at(0, probed()), at(0, challenged()), at(0, challenged())]
    assert each(alone(), *steps) == [1, 0, 1, 0]


def test_each_request_before_an_answer_is_owed_one() -> None:
    """Three requests owe two wrong answers besides the last one's; the next wrong answer is an attempt."""
    steps = [*[at(0, probed())] * 3, *[at(1, failed())] * 3]
    assert each(alone(), *steps) == [1, 0, 1, 0, 0, 1]


@pytest.mark.parametrize(("others", "attempts"), [(15, 0), (16, 1)])
def test_sixteen_accounts_that_wait_for_an_answer_are_remembered(others: int, attempts: int) -> None:
    """A wrong answer for the first of sixteen accounts is owed, and a forgotten one's counts once more."""
    guard = alone()
    guard.play(at(0, *(probed(account=str(number)) for number in range(1 + others))))
    assert each(guard, at(1, failed(account="0"))) == [attempts]


def test_a_guess_at_another_account_does_not_end_an_open_request() -> None:
    """After a guess, one more request and wrong answers for another account are an attempt each."""
    others = [at(1, failed(account="other"))] * 2
    assert each(alone(), at(0, probed()), at(0, failed()), at(1, probed()), *others) == [1, 0, 1, 1, 1]


@pytest.mark.parametrize(("later", "attempts"), [(32.0, 0), (32.1, 1)])
def test_a_session_lives_for_32_seconds(later: float, attempts: int) -> None:
    """An answer that a challenge still owes is no new attempt while PJSIP accepts the nonce."""
    guard = alone()
    assert guard.play(at(0, probed(), challenged())).counted == 1
    assert guard.play(at(later, failed())).counted == attempts


def test_the_last_of_repeated_calls_needs_its_challenge() -> None:
    """Without the events ChallengeSent, it is unknown whether the last call is the answer to a challenge."""
    calls = [probed(), challenged()] * 3
    assert alone().play(at(0, *calls)).counted == 3
    assert alone().play(at(0, *calls[::2])).counted == 2


def test_each_event_prolongs_a_session() -> None:
    """Each event prolongs the session, so answers that come every 30 s all belong to it."""
    guard = alone()
    guard.play(at(0, *[probed(), challenged()] * 3))
    assert each(guard, at(30, failed()), at(60, failed()), at(90, failed()), at(91, failed())) == [0, 0, 0, 1]


def test_the_life_of_a_session_runs_on_its_own_events() -> None:
    """An answer that is read late belongs to its session by the time at which Asterisk raised it."""
    guard = alone()
    guard.play(at(0, probed(), challenged()))
    assert guard.play(at(38, failed(late=6.5))).counted == 0


def test_a_success_closes_its_session_and_a_tampered_one_does_not() -> None:
    """After a success the session begins again; a tampered success changes nothing."""
    guard = alone()
    guard.play(at(0, probed()))
    assert each(
        guard,
        at(1, login(ATTACKER, tampered=True)),
        at(2, probed()),
        at(3, challenged()),
        at(4, login(ATTACKER)),
        at(5, probed()),
    ) == [0, 0, 1, 0, 1]


@pytest.mark.parametrize(
    "second",
    [failed(call=b"call-2"), failed(address="192.0.2.8"), failed(service=Service.SIP)],
    ids=["Call-ID", "address", "service"],
)
def test_sessions_share_nothing(second: SecurityEvent) -> None:
    """An answer that one session owes counts in any other session."""
    guard = alone()
    guard.play(at(0, probed(), challenged()))
    assert len(guard.play(at(1, second)).attempts) == 1


def test_the_port_makes_no_session() -> None:
    """One Call-ID from many ports is one session."""
    assert each(alone(), at(0, probed(port=5062)), at(0, challenged(port=5063))) == [1, 0]


# -- retransmissions -------------------------------------------------------------------------------------


def again(call: bytes = b"call-1", nonce: bytes = b"n", response: bytes = b"r") -> SecurityEvent:
    """Return a wrong answer that may be sent again."""
    return failed(call=call, nonce=nonce, response=response)


@pytest.mark.parametrize(
    ("after", "attempts"), [(0.29, 1), (0.31, 0), (0.5, 0), (32.0, 0), (32.1, 1)], ids=str
)
def test_a_repeat_is_forgiven_between_a_third_of_a_second_and_32_seconds(after: float, attempts: int) -> None:
    """A repeat is forgiven after 0.3 to 32 s: phones repeat a datagram after half a second, some sooner."""
    guard = alone()
    guard.play(at(10, again()))
    assert guard.play(at(10 + after, again())).counted == attempts


def test_one_repeat_is_forgiven_in_ten_minutes() -> None:
    """The next repeat counts, in its session and in any other, until 600 s are over."""
    steps = [
        at(0, again()),
        at(1, again()),
        at(2, again()),
        at(3, again(b"call-2")),
        at(4, again(b"call-2")),
        at(600, again(b"call-3")),
        at(601, again(b"call-3")),
        at(602, again(b"call-3")),
    ]
    assert each(alone(), *steps) == [1, 0, 1, 1, 1, 1, 1, 0]


def test_a_sender_that_is_silent_is_forgiven_nothing_more() -> None:
    """A sender that sends nothing for a minute is remembered until the ten minutes are over."""
    guard = alone()
    guard.play(at(0, again()), at(1, again()), *ticks(100, 100))
    assert each(guard, at(200, again(b"call-2")), at(201, again(b"call-2"))) == [1, 1]


@pytest.mark.parametrize(
    "other",
    [again(nonce=b"m"), again(response=b"s"), again(b"call-2")],
    ids=["another nonce", "another response", "another session"],
)
def test_another_answer_is_no_repeat(other: SecurityEvent) -> None:
    """Only the same challenge and response in the same session is a repeat."""
    assert each(alone(), at(0, again()), at(1, other)) == [1, 1]


def test_only_a_datagram_with_challenge_and_response_is_sent_again() -> None:
    """Over TCP, or with an empty challenge or response, a repeat counts."""
    for guess in (
        failed(nonce=b"n", response=b"r", transport=Transport.TCP),
        again(nonce=b""),
        again(response=b""),
    ):
        assert each(alone(), at(0, guess), at(1, guess)) == [1, 1]


def test_a_64_is_forgiven_one_repeat_together() -> None:
    """A /64 is forgiven one repeat in all, since its host would never run out of addresses."""
    for other, attempts in (("2001:db8::2", 1), ("2001:db8:0:1::2", 0)):
        guard = alone()
        guess, from_other = (failed(address, nonce=b"n", response=b"r") for address in ("2001:db8::1", other))
        assert each(guard, at(0, guess), at(1, guess), at(2, from_other)) == [1, 0, 1]
        assert guard.play(at(3, from_other)).counted == attempts


def test_nothing_is_forgiven_while_a_request_is_half_done() -> None:
    """An answer that completes a request is not forgiven, because it would hide the next guess."""
    steps = [at(0, again()), at(1, probed()), at(2, again()), at(3, failed(nonce=b"m", response=b"s"))]
    assert each(alone(), *steps) == [1, 1, 0, 1]


def test_an_owed_answer_uses_up_no_forgiveness() -> None:
    """An owed answer does not count and uses up no forgiveness; the later repeat is forgiven."""
    guard = alone()
    guard.play(at(0, *[probed(), challenged()] * 2))
    assert each(guard, at(1, again()), at(2, again()), at(3, again()), at(4, again())) == [0, 0, 0, 1]


# -- other services --------------------------------------------------------------------------------------


def test_the_next_challenge_of_chan_sip_shows_a_guess() -> None:
    """chan_sip reports a guess without a nonce of its own by another challenge alone."""
    steps = [at(0, challenged(service=Service.SIP, nonce=nonce)) for nonce in (b"1", b"1", b"2", b"2", b"3")]
    assert each(alone(), *steps) == [0, 0, 1, 0, 1]


def test_a_challenge_of_chan_sip_after_an_answer_shows_nothing() -> None:
    """A guess that chan_sip reports counts once, although its next challenge has another nonce."""
    steps = []
    for number in range(3):
        nonce = b"%d" % number
        steps += [at(number, challenged(service=Service.SIP, nonce=nonce)), at(number, wrong(nonce=nonce))]
    assert each(alone(), *steps) == [0, 1] * 3


def test_two_refusals_of_a_peers_acl_are_one_attempt() -> None:
    """chan_sip checks a peer's ACL twice for each request, so two refusals are one attempt."""
    refused = report(EventKind.FAILED_ACL, service=Service.SIP, acl="device_must_match_acl")
    assert each(alone(), *[at(0, refused)] * 5) == [1, 0, 1, 0, 1]


def test_two_unknown_accounts_of_iax2_are_two_attempts() -> None:
    """IAX2 reports an unknown account twice for each request, so two accounts share nothing."""
    lines = [
        report(EventKind.INVALID_ACCOUNT_ID, call=b"", by=NOTICE, service=Service.IAX2, account=account)
        for account in ("100", "101", "100", "101")
    ]
    assert each(Player(sources=("log",)), *(at(0, line) for line in lines)) == [1, 1, 0, 0]


def misdialled(account: str = "", by: str = AMI) -> SecurityEvent:
    """Return a call to an extension that does not exist."""
    return report(EventKind.FAILED_ACL, service=Service.SIP, acl="no_extension_match", account=account, by=by)


def test_three_calls_of_a_guest_to_nowhere_are_a_ban_by_probe() -> None:
    """Three calls of a guest to an unknown extension are a ban, as answers on the wire confirm them."""
    steps = [at(n, sent(service=Service.SIP, status=404), misdialled(by=NOTICE)) for n in range(3)]
    assert Player().play(*steps).bans == ["probe bans 192.0.2.7/32 by sip-udp for 600 s after 3"]


def test_a_caller_that_was_challenged_has_misdialled() -> None:
    """A caller that passed a challenge, or that a line names, has an account and has misdialled."""
    assert each(alone(), at(0, challenged(service=Service.SIP)), at(0, misdialled())) == [0, 0]
    lines = Player(sources=("log",))
    assert lines.play(at(0, misdialled("204", NOTICE)), *ticks(1, 3)).attempts == []
    assert lines.play(at(4, misdialled("anonymous", NOTICE)), *ticks(5, 7)).counted == 1
    assert lines.play(at(8, misdialled("anonymous@pbx.example", NOTICE)), *ticks(9, 11)).counted == 1


def test_a_failed_manager_login_counts_by_the_rule_manager() -> None:
    """Three failed manager logins are a full ban, because their AMI events prove the address."""
    steps = [at(n, manager(EventKind.INVALID_PASSWORD)) for n in range(3)]
    happened = Player().play(*steps)
    assert happened.attempts == ["192.0.2.7 counted, proven by handshake"] * 3
    assert happened.bans == ["manager bans 192.0.2.7/32 in full after 3"]


def manager(kind: EventKind, by: str = AMI) -> SecurityEvent:
    """Return a failed login at the manager interface."""
    return report(kind, service=Service.AMI, transport=Transport.TCP, call=b"0x1", account="admin", by=by)


@pytest.mark.parametrize("by", [NOTICE, SECURITY])
@pytest.mark.parametrize(
    "kind", [EventKind.INVALID_ACCOUNT_ID, EventKind.CHALLENGE_RESPONSE_FAILED, EventKind.FAILED_ACL]
)
def test_a_manager_login_of_any_kind_is_joined_with_its_line(kind: EventKind, by: str) -> None:
    """A line is of the same attempt as an event of any kind: the log has fewer texts than AMI has kinds."""
    guard = Player()
    first = guard.play(at(0, manager(kind), manager(EventKind.INVALID_PASSWORD, by)), *ticks(1, 3))
    assert first.attempts == ["192.0.2.7 counted, proven by handshake"]
    assert guard.sources_of(ATTACKER) == [{AMI, by}]


# -- the life of a session -------------------------------------------------------------------------------


def test_a_session_expires_when_the_age_of_its_last_event_is_rounded() -> None:
    """A tick 64 s after an event ends, also if the clock passes 2**20 s meanwhile and rounds differently."""
    assert Player().play(at(48_512.9, probed()), *ticks(48_576.9, 48_577.9)).counted == 1
