"""Transcripts: attempts that the wire alone shows, and log lines that the wire confirms or refutes."""

from collections.abc import Iterator

import pytest
from attrs import evolve
from tests.detect.transcripts.reports import (
    ATTACKER,
    BYSTANDER,
    NOTICE,
    PHONE,
    SECURITY,
    challenged,
    copied,
    failed,
    friend,
    login,
    probed,
    sent,
    wrong,
)
from tests.support.transcript import PBX, Banned, Loss, Player, Sources, Step, at, ticks

from ringfence.model import AMI, Challenge, CopiedRequest, SecurityEvent, Service, SourceId, Transport

TWO_HOURS = 7_200.0
FULL = ["guess bans 192.0.2.7/32 in full after 5"]


def reported(time: float = 0.0, call: bytes = b"before") -> Step:
    """Return a challenge that AMI reports, so that AMI is expected to report all challenges from then on."""
    return at(time, sent(PHONE, call), challenged(PHONE, call))


def line(address: str = ATTACKER, call: bytes = b"call-1") -> SecurityEvent:
    """Return a NOTICE line of a wrong password, which a sender can forge."""
    return failed(address, call, by=NOTICE, forgeable=True)


# -- challenges that AMI does not report -----------------------------------------------------------------


def test_a_challenge_that_ami_does_not_report_within_five_seconds_is_an_attempt() -> None:
    """AMI reports every challenge, so a sender suppressed an event that is missing."""
    guard = Player()
    guard.play(reported(), at(1, sent()))
    assert guard.play(*ticks(2, 5.9, every=0.3)).attempts == []
    hidden = guard.play(*ticks(6, 8))
    assert (hidden.attempts, hidden.hidden) == (["192.0.2.7 counted, claimed"], [ATTACKER])


@pytest.mark.parametrize("event", [challenged(), probed(), failed()], ids=["challenge", "opener", "failure"])
@pytest.mark.parametrize("order", ["AMI first", "wire first"])
def test_any_event_of_ami_reports_a_challenge(event: SecurityEvent, order: str) -> None:
    """One event for each challenge is enough, before the challenge or within five seconds after it."""
    guard = Player()
    steps = [at(1, event), at(1.1, sent())] if order == "AMI first" else [at(1, sent()), at(5.9, event)]
    happened = guard.play(reported(), *steps, *ticks(6, 8))
    assert happened.hidden == []


def test_an_event_that_comes_before_its_challenge_shows_that_ami_reports_all() -> None:
    """If AMI is read before the wire, its event shows that AMI reports the challenges of that port."""
    first = at(0, challenged(PHONE, b"before"), sent(PHONE, b"before"))
    assert Player().play(first, at(1, sent()), *ticks(2, 8)).hidden == [ATTACKER]


def test_a_hidden_challenge_by_tcp_counts_for_the_peer_of_its_connection() -> None:
    """A challenge by TCP that AMI does not report is proven, although its Via names no sender."""
    happened = Player().play(reported(), at(1, sent(sender=None, transport=Transport.TCP)), *ticks(2, 8))
    assert happened.attempts == ["192.0.2.7 counted, proven by handshake"]


def test_each_challenge_needs_an_event_of_its_own() -> None:
    """Of four challenges under one Call-ID AMI reports one, and the others are two guesses.

    The first of the others may be the challenge that the second one answers.
    """
    asked = [sent() for _ in range(4)]
    happened = Player().play(reported(), at(1, *asked, challenged()), *ticks(2, 8))
    assert happened.attempts == ["192.0.2.7 counted, claimed"] * 2


def test_a_hidden_challenge_makes_no_later_one_hidden() -> None:
    """After a hidden challenge, AMI's events report the later ones, one event for each."""
    guard = Player()
    assert guard.play(reported(), at(1, sent()), *ticks(2, 7)).hidden == [ATTACKER]
    for start in (8, 16, 24):
        later = guard.play(at(start, sent(), challenged()), *ticks(start + 1, start + 7))
        assert later.hidden == []


def test_an_event_reports_its_challenge_however_old_its_session_is() -> None:
    """The challenges of a session are not counted from zero between a challenge and its event."""
    steps = [at(1, sent(), challenged()), at(15.9, sent()), at(16.1, challenged())]
    assert Player().play(reported(), *steps, *ticks(17, 24)).hidden == []


@pytest.mark.parametrize("other", [{"transport": Transport.TCP}, {"service": Service.SIP}], ids=str)
def test_an_event_of_another_transport_or_service_reports_no_challenge(other: dict[str, object]) -> None:
    """A sender that asks for challenges by TCP under the same Call-ID hides no datagram."""
    event = challenged(**other)  # type: ignore[arg-type]
    assert Player().play(reported(), at(1, sent(), event), *ticks(2, 8)).hidden == [ATTACKER]


def test_a_log_line_reports_no_challenge() -> None:
    """A log line does not report a challenge: only AMI reports all of them, and senders can write lines."""
    happened = Player().play(reported(), at(1, sent(), challenged(by=SECURITY)), *ticks(2, 8))
    assert happened.hidden == [ATTACKER]


def test_nothing_is_concluded_while_ami_is_late() -> None:
    """Nothing is concluded after an event that is over a second old, as Asterisk itself is late."""
    for late, hidden in ((0.9, [ATTACKER]), (1.5, [])):
        happened = Player().play(
            reported(),
            *ticks(1, 1),
            at(2, sent()),
            at(3, challenged(PHONE, b"flood", late=late)),
            *ticks(4, 10),
        )
        assert happened.hidden == hidden


def test_after_a_delay_of_ami_later_challenges_are_expected_again() -> None:
    """Only challenges from before a late event may still be reported."""
    happened = Player().play(
        reported(),
        *ticks(1, 1),
        at(3, challenged(PHONE, b"flood", late=3.0)),
        at(4, sent()),
        *ticks(5, 10),
    )
    assert happened.hidden == [ATTACKER]


def test_nothing_is_concluded_of_what_left_before_ami_delivered() -> None:
    """A challenge from before AMI reconnected is not hidden: its event was lost with the connection."""
    for reconnected, hidden in ((0.5, [ATTACKER]), (1.5, [])):
        guard = Player()
        guard.play(reported(), at(0.2, Sources(ami=False)))
        steps = [at(1, sent()), at(reconnected, Sources())]
        happened = guard.play(sorted(steps, key=lambda step: step.time), *ticks(2, 8))
        assert happened.hidden == hidden


def test_nothing_is_concluded_without_ami() -> None:
    """Without AMI, a challenge that no source reports is not hidden."""
    guard = Player()
    happened = guard.play(reported(), at(0.5, Sources(ami=False)), at(1, sent()), *ticks(2, 8))
    assert happened.hidden == []


@pytest.mark.parametrize(("later", "hidden"), [(599.0, [ATTACKER]), (600.0, [])])
def test_a_reported_challenge_shows_for_ten_minutes_that_ami_reports_all(
    later: float, hidden: list[str]
) -> None:
    """AMI must have reported a challenge lately, as an administrator may switch ChallengeSent off.

    A reported challenge is valid for ten minutes.
    """
    happened = Player().play(reported(), at(later, sent()), *ticks(later + 1, later + 8))
    assert happened.hidden == hidden


def test_nothing_is_concluded_of_a_port_that_ami_never_reported() -> None:
    """A port that PJSIP's events never came from may be another server's on this host."""
    assert Player().play(at(1, sent()), *ticks(2, 8)).hidden == []


def test_a_phone_that_registers_again_and_again_hides_nothing() -> None:
    """A phone uses one Call-ID for all its registrations, and AMI reports each of them."""
    steps = []
    for minute in range(10):
        time = 60.0 * minute
        steps += [at(time, sent(PHONE), challenged(PHONE)), at(time + 0.1, login(PHONE))]
        steps += [*ticks(time + 1, time + 8)]
    assert Player().play(*steps).attempts == []


def test_a_sender_flushes_no_hidden_challenge() -> None:
    """A hidden challenge counts, also if its sender then opens thousands of reported sessions."""
    calls = [b"%d" % n for n in range(8_200)]
    more = [at(1.1 + n / 2_000, sent(call=call), challenged(call=call)) for n, call in enumerate(calls)]
    assert Player().play(reported(), at(1, sent()), more, *ticks(6, 12)).hidden == [ATTACKER]


# -- evasive requests -------------------------------------------------------------------------------------


def test_an_evasive_request_counts_at_once() -> None:
    """An evasive request counts at once: it has bytes that suppress events and that no phone sends."""
    guard = Player()
    steps = [at(n, sent(call=b"%d\xff" % n, evasive=True)) for n in range(5)]
    happened = guard.play(*steps)
    assert happened.attempts == ["192.0.2.7 counted, claimed"] * 5
    assert happened.hidden == [ATTACKER] * 5
    assert happened.bans == ["guess bans 192.0.2.7/32 by sip-udp for 600 s after 5"]
    assert guard.play(*ticks(6, 12)).attempts == []


def test_an_evasive_request_counts_once() -> None:
    """An evasive request does not also count for a missing report of AMI.

    Of three in one session, the first may be the request for a challenge.
    """
    happened = Player().play(reported(), at(1, *[sent(evasive=True)] * 3), *ticks(2, 9))
    assert happened.attempts == ["192.0.2.7 counted, claimed"] * 2


def test_an_evasive_request_of_an_unknown_sender_counts_for_no_address() -> None:
    """An evasive request whose topmost Via was cut counts for no address, since its sender is unknown."""
    assert Player().play(at(0, sent(evasive=True, sender=None)), *ticks(1, 8)).attempts == []


def test_an_evasive_request_by_tcp_is_proven() -> None:
    """An evasive request by TCP is proven, because the answer left by the sender's own connection."""
    happened = Player().play(at(0, sent(evasive=True, sender=None, transport=Transport.TCP)))
    assert (happened.attempts, happened.hidden) == (["192.0.2.7 counted, proven by handshake"], [])


def test_what_a_friend_is_sent_by_tcp_is_no_guess_of_it() -> None:
    """An answer to a friend by TCP is no guess, as it may begin within a body that another sender wrote."""
    guard = Player()
    guard.play(at(0, friend()))
    by_tcp = guard.play(at(1, sent(PHONE, evasive=True, transport=Transport.TCP)))
    assert by_tcp.attempts == [f"{PHONE} unconfirmed, proven by handshake"]
    assert guard.play(at(2, sent(PHONE, b"other", evasive=True))).of("counted as a friend's") == [PHONE]


# -- log lines -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["wire first", "line first"])
def test_a_line_counts_with_its_challenge(order: str) -> None:
    """A challenge of the same address and Call-ID confirms a line, before it or within a second after it."""
    steps = [at(0, sent()), at(0.1, line())] if order == "wire first" else [at(0, line()), at(0.9, sent())]
    happened = Player().play(*steps, *ticks(1, 3))
    assert happened.attempts == ["192.0.2.7 counted, claimed"]


@pytest.mark.parametrize(("age", "standing"), [(9.9, "counted"), (10.0, "forged")])
def test_a_challenge_confirms_a_line_for_ten_seconds(age: float, standing: str) -> None:
    """A line without a recent challenge is forged, because the wire would have seen the challenge."""
    happened = Player().play(at(0, sent()), at(age, line()), *ticks(age + 1, age + 3))
    assert happened.attempts == [f"192.0.2.7 {standing}, claimed"]


@pytest.mark.parametrize(
    "other",
    [sent(call=b"call-2"), sent(BYSTANDER), sent(service=Service.SIP), sent(transport=Transport.TCP)],
    ids=["another Call-ID", "another address", "chan_sip", "TCP"],
)
def test_a_line_is_confirmed_by_nothing_but_its_own_challenge(other: Challenge) -> None:
    """Only a challenge of the same address, Call-ID, service and transport confirms a line."""
    for entries in ((other, line()), (line(), other)):
        happened = Player().play(at(0, *entries), *ticks(1, 3))
        assert happened.attempts == ["192.0.2.7 forged, claimed"]


@pytest.mark.parametrize(("lost", "standing"), [(-10.1, "forged"), (-8.5, "unconfirmed")])
def test_nothing_is_concluded_for_ten_seconds_after_a_loss(lost: float, standing: str) -> None:
    """A line after a loss is not forged: the lost packet may have been its challenge.

    The line is judged a second after it comes.
    """
    steps = sorted([at(20 + lost, Loss()), at(20, line())], key=lambda step: step.time)
    happened = Player().play(*steps, *ticks(21, 22))
    assert happened.attempts == [f"192.0.2.7 {standing}, claimed"]


def test_a_line_without_a_wire_is_unconfirmed() -> None:
    """Without the wire a line is unconfirmed, as no source would have seen its challenge."""
    guard = Player()
    happened = guard.play(at(0, Sources(wire=False)), *ticks(0, 0), at(1, line()), *ticks(2, 3))
    assert happened.attempts == ["192.0.2.7 unconfirmed, claimed"]


def test_a_line_needs_its_challenge_while_ami_is_away() -> None:
    """The wire still sees each challenge, so a line without one is forged."""
    guard = Player()
    happened = guard.play(at(0, Sources(ami=False)), *ticks(0, 0), at(1, failed(by=SECURITY)), *ticks(2, 3))
    assert happened.attempts == ["192.0.2.7 forged, claimed"]


def test_a_line_of_a_banned_address_is_late_and_no_forgery() -> None:
    """A line of a banned address is late and not forged, since the address gets no challenge any more."""
    happened = Player().play(at(0, Banned("192.0.2.7/32", 100.0)), at(1, line()), *ticks(2, 3))
    assert happened.attempts == ["192.0.2.7 late, claimed"]


def test_without_ami_and_the_wire_a_line_is_a_claim() -> None:
    """Without AMI and the wire a line is a claim; once AMI is back, a line is unconfirmed again."""
    guard = Player()
    guard.play(at(0, Sources(ami=False, wire=False)), *ticks(0, 0))
    assert guard.play(at(1, failed(by=SECURITY))).attempts == ["192.0.2.7 counted, claimed"]
    guard.play(at(2, Sources(wire=False)), *ticks(2, 2))
    again = guard.play(at(3, failed(call=b"call-2", by=SECURITY)), *ticks(4, 5))
    assert again.attempts == ["192.0.2.7 unconfirmed, claimed"]


def test_with_the_log_alone_a_forgeable_line_is_unconfirmed() -> None:
    """A line that may name any address is less than a claim; an ordinary line is a claim."""
    for entry, standing in ((line(), "unconfirmed"), (failed(by=SECURITY), "counted")):
        happened = Player(sources=("log",)).play(at(0, entry), *ticks(1, 2))
        assert happened.attempts == [f"192.0.2.7 {standing}, claimed"]


# -- TCP connections that the kernel knows ---------------------------------------------------------------


def by_port(port: int = 5062, call: bytes = b"call-1") -> SecurityEvent:
    """Return a line that names a port and, as Asterisk writes it, no transport."""
    return failed(call=call, by=NOTICE, forgeable=True, port=port, transport=Transport.UNKNOWN)


def test_a_line_counts_with_the_connection_of_its_address_and_port() -> None:
    """A connection of a line's address and port proves it, because that host completed a handshake."""
    for port, attempts in ((5062, ["192.0.2.7 counted, proven by handshake"]), (5063, [])):
        guard = Player(sources=("AMI", "log"), connected=[(ATTACKER, 5062)])
        assert guard.play(at(0, by_port(port))).attempts == attempts


def test_a_connection_confirms_no_line_of_a_datagram() -> None:
    """A connection confirms no datagram: its source may be forged, also if it has a TCP connection."""
    guard = Player(sources=("AMI", "log"), connected=[(ATTACKER, 5062)])
    assert guard.play(at(0, line()), *ticks(1, 2)).attempts == ["192.0.2.7 unconfirmed, claimed"]


@pytest.mark.parametrize(("misses", "counted"), [(10, 1), (11, 0)])
def test_ten_lines_without_a_connection_are_forgiven(misses: int, counted: int) -> None:
    """Ten lines without a connection are forgiven; a forger guesses ports, so it makes many more."""
    guard = Player(sources=("AMI", "log"), connected=[(ATTACKER, 5062)])
    guard.play(at(0, *(by_port(20_000 + n, b"%d" % n) for n in range(misses))), *ticks(1, 3))
    assert guard.play(at(4, by_port())).counted == counted


def test_lines_of_tls_count_against_their_address_with_the_log_alone() -> None:
    """With the log alone, lines of TLS without a connection count against their address too."""
    guard = Player(sources=("log",), connected=[(ATTACKER, 5062)])
    by_tls = [
        failed(call=b"%d" % n, by=SECURITY, port=20_000 + n, transport=Transport.TLS) for n in range(30)
    ]
    assert guard.play(at(0, *by_tls), *ticks(1, 3)).counted == 0
    assert guard.play(at(4, failed(by=SECURITY, transport=Transport.TLS)), *ticks(5, 7)).counted == 0


@pytest.mark.parametrize(("later", "counted"), [(3_599.0, 0), (3_600.0, 1)])
def test_lines_count_against_an_address_for_an_hour(later: float, counted: int) -> None:
    """After an hour an address's connections confirm its lines again."""
    guard = Player(sources=("AMI", "log"), connected=[(ATTACKER, 5062)])
    guard.play(at(0, *(by_port(20_000 + n, b"%d" % n) for n in range(20))), *ticks(1, 3), *ticks(100, 100))
    assert guard.play(at(later, by_port())).counted == counted


def test_a_line_that_ami_confirms_counts_against_no_connection() -> None:
    """A waiting line that AMI confirms is taken back from the count against its address."""
    guard = Player(sources=("AMI", "log"), connected=[(ATTACKER, 5062)])
    calls = [b"%d" % n for n in range(20)]
    guard.play(at(0, *(by_port(20_000, call) for call in calls)))
    guard.play(at(0.5, *(failed(call=call, port=20_000) for call in calls)), *ticks(1, 3))
    assert guard.play(at(4, by_port())).counted == 1


def test_a_line_that_a_challenge_confirms_counts_against_no_connection() -> None:
    """A waiting line that the wire confirms is taken back from the count against its address."""
    guard = Player(connected=[(ATTACKER, 5062)])
    calls = [b"%d" % n for n in range(20)]
    guard.play(at(0, *(by_port(20_000, call) for call in calls)))
    guard.play(at(0.5, *(sent(call=call) for call in calls)), *ticks(1, 3))
    assert guard.play(at(4, by_port())).counted == 1


# -- challenges that are never answered ------------------------------------------------------------------


def abandoned(number: int, time: float = 10.0) -> Step:
    """Return challenges that the attacker requests, that AMI reports, and that no success follows."""
    calls = [b"%d" % n for n in range(number)]
    asked = [sent(call=call) for call in calls]
    return at(time, *asked, *(challenged(call=call) for call in calls))


def phone_logs_in(time: float = 0.0) -> Step:
    """Return a phone's registration, which shows that AMI reports successes."""
    return at(time, sent(PHONE), challenged(PHONE), login(PHONE))


@pytest.mark.parametrize(("number", "attempts"), [(100, 0), (101, 1), (106, 5)])
def test_more_than_a_hundred_abandoned_challenges_are_attempts(number: int, attempts: int) -> None:
    """Each challenge beyond a hundred in ten minutes is an attempt, except the first one.

    No phone requests so many. The first one may be the challenge that the next request answers.
    """
    happened = Player().play(phone_logs_in(), abandoned(number), *ticks(11, 13))
    assert happened.counted == attempts


def test_each_further_abandoned_challenge_is_an_attempt() -> None:
    """The attempts that abandoned challenges make do not begin the count again."""
    guard = Player()
    guard.play(phone_logs_in(), abandoned(106), *ticks(11, 13))
    assert guard.play(abandoned(1, 14.0), *ticks(15, 16)).counted == 1


def test_the_abandoned_challenges_of_a_64_are_those_of_one_host() -> None:
    """A host owns its /64, so it gains nothing by another address for each challenge."""
    senders = [(f"2001:db8::{n}", b"%d" % n) for n in range(106)]
    asked = at(10, *(sent(*sender) for sender in senders), *(challenged(*sender) for sender in senders))
    assert Player().play(phone_logs_in(), asked, *ticks(11, 13)).counted == 5


@pytest.mark.parametrize(("ami_for", "attempts"), [(TWO_HOURS - 10.25, 0), (TWO_HOURS - 10.0, 5)])
def test_abandoned_challenges_need_two_hours_of_ami(ami_for: float, attempts: int) -> None:
    """AMI must be connected for two hours, within which each phone registers and AMI reports it."""
    happened = Player(ami_for=ami_for).play(phone_logs_in(), abandoned(106), *ticks(11, 13))
    assert happened.counted == attempts


def test_abandoned_challenges_from_the_first_two_hours_of_ami_do_not_add_up() -> None:
    """Challenges from before are discarded, and the next ones are counted from zero."""
    guard = Player(ami_for=TWO_HOURS - 10.25)
    assert guard.play(phone_logs_in(), abandoned(106), *ticks(11, 13)).counted == 0
    assert guard.play(abandoned(106, 20.0), *ticks(21, 23)).counted == 5


def test_abandoned_challenges_need_a_success_that_ami_reports() -> None:
    """AMI must have reported a success, because an administrator may have switched SuccessfulAuth off."""
    assert Player().play(abandoned(106), *ticks(11, 13)).counted == 0


def test_abandoned_challenges_wait_a_second_for_a_success() -> None:
    """A success within a second prevents attempts, as AMI reports a burst of registrations in that time."""
    guard = Player()
    assert guard.play(phone_logs_in(), abandoned(106), *ticks(10.5, 10.9, every=0.2)).counted == 0
    assert guard.play(at(10.95, login(ATTACKER)), *ticks(11, 13)).counted == 0


@pytest.mark.parametrize(("rest", "attempts"), [(609.9, 5), (610.0, 0)])
def test_abandoned_challenges_are_counted_for_ten_minutes(rest: float, attempts: int) -> None:
    """Fifty challenges and 56 more within ten minutes make attempts; 56 after that time make none."""
    happened = Player().play(phone_logs_in(), abandoned(50), abandoned(56, rest), *ticks(rest + 1, rest + 3))
    assert happened.counted == attempts


@pytest.mark.parametrize(("later", "attempts"), [(86_400.9, 0), (86_401.0, 5)])
def test_an_address_that_succeeded_is_trusted_for_a_day(later: float, attempts: int) -> None:
    """An address that succeeded is trusted for a day: its phone may answer no challenge of OPTIONS."""
    happened = Player().play(
        phone_logs_in(),
        at(1, login(ATTACKER)),
        *ticks(200, 200),
        abandoned(106, later),
        *ticks(later + 1, later + 3),
    )
    assert happened.counted == attempts


def test_a_tampered_success_makes_no_address_trusted() -> None:
    """Neither a tampered success nor one from the log makes an address trusted."""
    for success in (login(ATTACKER, tampered=True), login(ATTACKER, by=SECURITY)):
        steps = [phone_logs_in(), at(1, success), abandoned(106), *ticks(11, 13)]
        assert Player().play(*steps).counted == 5


def test_an_attempt_that_is_reported_begins_the_count_again() -> None:
    """A guess that AMI reports resets the count of abandoned challenges."""
    happened = Player().play(
        phone_logs_in(),
        abandoned(100),
        at(10.5, sent(call=b"open"), challenged(call=b"open"), failed(call=b"open")),
        abandoned(100, 11.0),
        *ticks(12, 14),
    )
    assert happened.counted == 1


def test_after_a_reported_attempt_a_hundred_are_abandoned_again() -> None:
    """The count that begins again allows no more challenges than the first one."""
    guard = Player()
    guard.play(phone_logs_in(), abandoned(150), *ticks(11, 13))
    assert guard.play(at(14, failed(call=b"open"))).counted == 1
    assert len(guard.play(abandoned(106, 15.0), *ticks(16, 18)).attempts) == 5


def test_of_chan_sip_nothing_is_concluded() -> None:
    """chan_sip reports no success of a SUBSCRIBE, and a phone may have a hundred lamps."""
    steps = [at(10 + n / 100, sent(call=b"%d" % n, service=Service.SIP)) for n in range(200)]
    assert Player().play(phone_logs_in(), *steps, *ticks(13, 16)).counted == 0


# -- lines of an address that has asked for a challenge before -------------------------------------------


def asked_before(time: float = 10.0) -> list[Step]:
    """Return a challenge of the attacker under another Call-ID, and a phone's login before it."""
    return [phone_logs_in(), at(time, sent(call=b"asked"), challenged(call=b"asked"))]


def test_a_line_about_a_copied_request_counts() -> None:
    """A line counts if its address sent credentials with its Call-ID: PJSIP may check them and not answer.

    PJSIP sends no answer if a Via is unreachable.
    """
    asked = at(14, copied(nonce=b"n"))
    happened = Player().play(*asked_before(), *ticks(11, 11), asked, at(15, line()), *ticks(16, 18))
    assert happened.attempts == ["192.0.2.7 counted, claimed"]


@pytest.mark.parametrize(
    "other", [copied(BYSTANDER, nonce=b"n"), copied(call=b"call-2", nonce=b"n"), copied()], ids=str
)
def test_a_line_about_another_request_is_forged(other: CopiedRequest) -> None:
    """Requests of another sender, of another Call-ID, or without credentials confirm no line."""
    happened = Player().play(*asked_before(), *ticks(11, 11), at(14, other), at(15, line()), *ticks(16, 18))
    assert happened.attempts == ["192.0.2.7 forged, claimed"]


def test_a_phone_that_is_registering_is_named_by_no_line() -> None:
    """A line that an attacker writes between a phone's challenge and its success is forged."""
    happened = Player().play(
        phone_logs_in(),
        *ticks(1, 1),
        at(10, sent("198.51.100.5", b"new"), challenged("198.51.100.5", b"new")),
        at(10.2, line("198.51.100.5")),
        at(10.5, login("198.51.100.5", b"new")),
        *ticks(11, 13),
        at(14, line("198.51.100.5", b"call-2")),
        *ticks(15, 17),
    )
    assert happened.of("forged") == ["198.51.100.5"] * 2
    assert happened.counted == 0


# -- chan_sip's refusals ---------------------------------------------------------------------------------


def refused() -> Step:
    """Return chan_sip's 403 to the attacker's session."""
    return at(1, sent(service=Service.SIP, status=403))


def test_a_refusal_of_chan_sip_after_its_challenge_is_a_guess() -> None:
    """A 403 after a challenge is a guess: chan_sip checks the password of a MESSAGE and reports nothing."""
    asked = at(0.5, sent(service=Service.SIP, nonce=b"n"))
    ready = [*ticks(0, 0)]
    assert Player().play(*ready, asked, refused()).attempts == ["192.0.2.7 counted, claimed"]
    assert Player().play(*ready, refused()).attempts == []
    assert Player().play(*ready, asked, refused(), refused()).counted == 1


def test_a_refusal_of_a_copied_request_is_a_guess() -> None:
    """A request that carries its sender's own nonce is a guess if a 403 follows, under any Call-ID."""
    asked = at(0.2, sent(service=Service.SIP, nonce=b"n", call=b"asked"))
    copy = at(0.5, copied(nonce=b"n"))
    happened = Player().play(*ticks(0, 0), asked, copy, refused())
    assert happened.attempts == ["192.0.2.7 counted, proven by nonce"]


def guessed(
    number: int, *, service: Service = Service.PJSIP, status: int = 401, accepted: bool = False
) -> Iterator[Step]:
    """Yield a question, its challenge, a guess and Asterisk's answer, as the wire sees them."""
    call, nonce = b"call-%d" % number, b"%d/n" % number
    yield at(number, copied(call=call, sequence=1), sent(call=call, nonce=nonce, service=service, sequence=1))
    sends = nonce if status == 401 else b""
    yield at(
        number + 0.1,
        copied(call=call, nonce=nonce),
        sent(call=call, nonce=sends, service=service, status=status, sequence=2, accepted=accepted),
    )


@pytest.mark.parametrize("service", [Service.PJSIP, Service.SIP])
@pytest.mark.parametrize("sources", [("AMI", "log", "wire"), ("log", "wire"), ("wire",)])
def test_the_wire_alone_counts_each_guess_of_a_stranger(service: Service, sources: tuple[str, ...]) -> None:
    """No event and no line is needed: the request with credentials and its refusal are the evidence."""
    guard = Player(sources=sources)
    happened = guard.play(
        *ticks(0, 0), *(step for number in range(1, 6) for step in guessed(number, service=service))
    )
    assert happened.attempts == ["192.0.2.7 counted, proven by nonce"] * 5
    assert happened.bans == FULL
    assert guard.play(*ticks(7, 20)).attempts == []


@pytest.mark.parametrize("service", [Service.PJSIP, Service.SIP])
@pytest.mark.parametrize(("status", "accepted"), [(401, True), (200, False), (404, False)])
def test_a_right_password_is_no_guess(service: Service, status: int, accepted: bool) -> None:  # noqa: FBT001
    """A challenge because of an old nonce, and any answer that is no refusal, follow a right password."""
    happened = Player().play(
        *ticks(0, 0), *guessed(1, service=service, status=status, accepted=accepted), *ticks(2, 20)
    )
    assert happened.attempts == []


def test_chan_sip_refuses_a_right_password_by_policy() -> None:
    """A phone whose lamps chan_sip refuses makes no attempt, nor does a forbidden call after its 100."""
    policy = guessed(1, service=Service.SIP, status=403, accepted=True)
    called = [*guessed(2, service=Service.SIP, status=100)]
    forbidden = at(2.2, sent(call=b"call-2", service=Service.SIP, status=403, sequence=2))
    assert Player().play(*ticks(0, 0), *policy, *called, forbidden, *ticks(3, 20)).attempts == []


@pytest.mark.parametrize("by", [AMI, SECURITY])
@pytest.mark.parametrize("order", ["wire first", "wire last"])
def test_the_wire_and_another_source_count_a_guess_once(by: str, order: str) -> None:
    """The same guess in AMI or in the log is a duplicate, whichever comes first."""
    steps = [*ticks(0, 0)]
    for number in range(1, 4):
        question, guess = guessed(number)
        told = at(number + 0.1, failed(call=b"call-%d" % number, nonce=b"%d/n" % number, by=by))
        steps += [question, told, guess] if order == "wire last" else [question, guess, told]
    assert Player().play(*steps, *ticks(5, 20)).counted == 3


@pytest.mark.parametrize("service", [Service.PJSIP, Service.SIP])
@pytest.mark.parametrize("order", ["wire first", "wire last"])
def test_a_guess_at_the_second_asterisk_counts_once(service: Service, order: str) -> None:
    """The wire does not know which Asterisk refused a guess, so its report matches that of each of them."""
    guard, steps = Player(others=["second"]), [*ticks(0, 0)]
    for number in range(1, 4):
        call, nonce = b"call-%d" % number, b"%d/n" % number
        question, guess = guessed(number, service=service)
        kind = failed if service is Service.PJSIP else wrong
        event = kind(call=call, nonce=nonce, response=b"r%d" % number)
        told = at(number + 0.1, evolve(event, source=SourceId("second", AMI)))
        steps += [question, told, guess] if order == "wire last" else [question, guess, told]
    assert guard.play(*steps, *ticks(5, 20)).counted == 3


def test_a_line_that_is_only_listed_hides_no_guess() -> None:
    """A line that nothing confirms is listed; a guess with the same Call-ID counts all the same."""
    blind = [*ticks(0, 0), at(0.5, Sources(wire=False)), at(1, line(call=b"call-4")), *ticks(2, 3)]
    happened = Player().play(*blind, *guessed(4), *ticks(5, 20))
    assert happened.attempts == ["192.0.2.7 unconfirmed, claimed", "192.0.2.7 counted, proven by nonce"]


def test_one_call_id_at_two_asterisks_is_two_guesses() -> None:
    """A sender guesses at two Asterisks under one Call-ID: each guess counts."""
    guard, steps = Player(others=["second"]), [*ticks(0, 0)]
    for number, name in enumerate([PBX, "second"], 1):
        nonce = b"%d/n" % number
        event = evolve(failed(nonce=nonce, response=b"r"), source=SourceId(name, AMI))
        steps += [
            at(number, copied(sequence=1 + 2 * number), sent(nonce=nonce, sequence=1 + 2 * number)),
            at(number + 0.1, copied(nonce=nonce, sequence=2 + 2 * number)),
            at(number + 0.2, event, sent(nonce=nonce, sequence=2 + 2 * number)),
        ]
    assert guard.play(*steps, *ticks(5, 20)).counted == 2


@pytest.mark.parametrize("told", [False, True])
def test_a_blind_guess_counts_once(told: bool) -> None:  # noqa: FBT001 - a parameter
    """A guess that gets no answer counts when somebody else is answered, also if AMI reports it too."""
    steps = [*ticks(0, 0)]
    for number in range(1, 6):
        call, nonce = b"call-%d" % number, b"%d/n" % number
        question, _ = guessed(number)
        steps += [question, at(number + 0.1, copied(call=call, nonce=nonce))]
        if told:
            steps.append(at(number + 0.1, failed(call=call, nonce=nonce)))
    other = at(6, copied(BYSTANDER, sequence=1), sent(BYSTANDER, sequence=1))
    happened = Player().play(*steps, other, *ticks(7, 20))
    assert happened.attempts == ["192.0.2.7 counted, proven by nonce"] * 5
    assert happened.bans == FULL


@pytest.mark.parametrize("told", [False, True])
def test_a_blind_guess_with_too_many_nonces_counts_once(told: bool) -> None:  # noqa: FBT001 - a parameter
    """Its true nonce is not among those that are kept, so it proves nothing."""
    crowded = evolve(copied(call=b"call-1", nonce=b"junk"), crowded=True)
    question, _ = guessed(1)
    steps = [*ticks(0, 0), question, at(1.1, crowded)]
    if told:
        steps.append(at(1.1, failed(call=b"call-1", nonce=b"1/n")))
    other = at(6, copied(BYSTANDER, sequence=1), sent(BYSTANDER, sequence=1))
    happened = Player().play(*steps, other, *ticks(7, 20))
    assert happened.attempts == [f"192.0.2.7 counted, {'proven by nonce' if told else 'claimed'}"]


def test_by_tcp_each_guess_counts_once_and_blindly_only_if_its_nonce_proves_the_sender() -> None:
    """A guess by TCP counts by its answer, also without one; but a segment can be forged like a datagram."""
    tcp = Transport.TCP
    steps = [*ticks(0, 0)]
    for number, nonce in enumerate((b"1/n", b"2/n", b"forged/n"), 1):
        call = b"call-%d" % number
        question = sent(call=call, nonce=b"%d/n" % number, sequence=1, transport=tcp)
        steps += [
            at(number, copied(call=call, sequence=1, transport=tcp), question),
            at(number + 0.1, copied(call=call, nonce=nonce, transport=tcp)),
        ]
    answer = at(1.2, sent(call=b"call-1", nonce=b"1b/n", sequence=2, transport=tcp))
    elsewhere = at(2.5, sent(BYSTANDER, nonce=b"forged/n", sequence=9, transport=tcp))
    other = at(6, copied(BYSTANDER, sequence=1), sent(BYSTANDER, sequence=1))
    steps = sorted([*steps, answer, elsewhere, other], key=lambda step: step.time)
    happened = Player().play(*steps, *ticks(7, 20))
    assert happened.attempts == ["192.0.2.7 counted, proven by handshake"] * 2


@pytest.mark.parametrize("told", [False, True])
def test_a_blind_guess_that_shows_late_counts_once(told: bool) -> None:  # noqa: FBT001 - a parameter
    """If nobody is answered for long, AMI's report of the guess is too old to be matched by its number."""
    question, _ = guessed(1)
    steps = [*ticks(0, 0), question, at(1.1, copied(call=b"call-1", nonce=b"1/n"))]
    if told:
        steps.append(at(1.1, failed(call=b"call-1", nonce=b"1/n")))
    other = at(30, copied(BYSTANDER, sequence=1), sent(BYSTANDER, sequence=1))
    assert Player().play(*steps, *ticks(2, 29), other, *ticks(31, 40)).counted == 1


def test_an_evasive_question_and_its_guess_count_once() -> None:
    """No phone sends such bytes, so the question alone is an attempt, and its guess belongs to it."""
    guard, steps = Player(), [*ticks(0, 0)]
    for number in range(1, 4):
        call, nonce = b"%d\xff" % number, b"%d/n" % number
        asked = sent(call=call, nonce=nonce, evasive=True, sequence=1)
        refusal = sent(call=call, nonce=nonce, evasive=True, sequence=2)
        steps += [
            at(number, copied(call=call, sequence=1), asked, asked),
            at(number + 0.1, copied(call=call, nonce=nonce), refusal, refusal),
        ]
    happened = guard.play(*steps, *ticks(5, 20))
    assert happened.counted == 3


def test_a_phone_that_has_just_become_a_friend_makes_no_attempt() -> None:
    """The kernel copies neither its success nor its next request; the challenge of that one shows nothing."""
    question, _ = guessed(1)
    asked = at(1.1, copied(call=b"call-1", nonce=b"1/n"))
    again = at(30, sent(call=b"call-1", nonce=b"30/n", sequence=3))
    steps = [question, asked, at(1.2, login(ATTACKER, b"call-1")), again]
    assert Player().play(*ticks(0, 0), *steps, *ticks(31, 50)).attempts == []


REGISTRATION = (
    *("seen", "of another account", "no REGISTER", "refused", "not proven", "long ago", "in the log alone"),
    "not copied",
)


@pytest.mark.parametrize("which", REGISTRATION)
def test_a_registration_at_chan_sip_that_the_wire_sees_makes_a_friend(which: str) -> None:
    """AMI says that the password was right, the wire that a proven REGISTER of this address was accepted."""
    account = {"of another account": "205", "no REGISTER": ""}.get(which, "204")
    nonce = b"forged/n" if which == "not proven" else b"n"
    asked = copied(nonce=nonce, registers=account)
    answer = sent(service=Service.SIP, status=401 if which == "refused" else 200, sequence=2)
    told = login(ATTACKER, service=Service.SIP, by=SECURITY if which == "in the log alone" else AMI)
    guard = Player()
    guard.play(
        *ticks(0, 0),
        at(0.5, sent(BYSTANDER, nonce=b"forged/n", service=Service.SIP)),
        at(1, copied(sequence=1), sent(nonce=b"n", service=Service.SIP, sequence=1)),
        *([] if which == "not copied" else [at(1.1, asked, answer)]),
        at(12 if which == "long ago" else 1.2, told),
    )
    assert guard.is_friend(ATTACKER) is (which == "seen")


def test_a_phone_of_chan_sip_stays_a_friend() -> None:
    """Of a friend nothing is copied, so its later logins count for the account that was proven there."""
    steps = [
        at(1, copied(sequence=1), sent(nonce=b"n", service=Service.SIP, sequence=1)),
        at(1.1, copied(nonce=b"n", registers="204"), sent(service=Service.SIP, status=200, sequence=2)),
        at(1.2, login(ATTACKER, service=Service.SIP)),
    ]
    hour = 3600.0
    guard = Player()
    guard.play(
        *ticks(0, 0), *steps, at(1.5 * hour, login(ATTACKER, service=Service.SIP)), *ticks(3 * hour, 3 * hour)
    )
    assert guard.is_friend(ATTACKER)
    guard.play(
        at(3.2 * hour, login(ATTACKER, service=Service.SIP, account="205")), *ticks(4 * hour, 4 * hour)
    )
    assert not guard.is_friend(ATTACKER)


def test_silence_after_a_login_or_of_a_banned_sender_is_no_guess() -> None:
    """AMI reports the success of a sender that hears no answer; and what a ban drops gets none."""
    question, _ = guessed(1)
    asked = copied(call=b"call-1", nonce=b"1/n")
    other = at(2, copied(BYSTANDER, sequence=1), sent(BYSTANDER, sequence=1))
    succeeded = at(1.2, login(ATTACKER, b"call-1"))
    for steps in ([at(1.1, asked), succeeded], [at(1.1, evolve(asked, dropped=True))]):
        assert Player().play(*ticks(0, 0), question, *steps, other, *ticks(3, 20)).attempts == []


def test_a_repeated_question_or_answer_is_no_guess() -> None:
    """A phone repeats a lost question, and Asterisk its answer, after the phone has answered the first."""
    question, guess = guessed(1, status=200)
    again = at(1.5, copied(call=b"call-1", sequence=1), sent(call=b"call-1", nonce=b"1/n", sequence=1))
    assert Player().play(*ticks(0, 0), question, question, guess, again, again, *ticks(2, 20)).attempts == []


def test_an_answer_with_an_unknown_number_belongs_to_a_guess() -> None:
    """A sender cannot hide a guess by a CSeq that Asterisk reads in another way."""
    question, _ = guessed(1)
    other = at(1.1, copied(nonce=b"1/n", sequence=7), sent(nonce=b"1/n", sequence=9))
    assert Player().play(*ticks(0, 0), question, other, *ticks(2, 20)).counted == 1


@pytest.mark.parametrize(("later", "counted"), [(63.9, 1), (64.0, 0)])
def test_a_challenge_waits_64_seconds_for_its_refusal(later: float, counted: int) -> None:
    """A 403 more than 64 s after a challenge belongs to another request."""
    asked = at(0, sent(service=Service.SIP, nonce=b"n"))
    refusal = at(later, sent(service=Service.SIP, status=403))
    assert Player().play(*ticks(0, 0), asked, refusal).counted == counted


@pytest.mark.parametrize(("later", "counted"), [(59.9, 0), (60.0, 1)])
def test_a_refusal_within_a_minute_of_a_login_is_the_dialplans(later: float, counted: int) -> None:
    """A phone that logged in may call a number that the dialplan forbids, so its 403 is no guess."""
    happened = Player().play(
        *ticks(0, 0),
        at(0, login(ATTACKER, service=Service.SIP)),
        at(later, sent(service=Service.SIP, nonce=b"n"), sent(service=Service.SIP, status=403)),
    )
    assert happened.counted == counted


def again(nonce: bytes, call: bytes = b"call-1") -> Challenge:
    """Return chan_sip's challenge, which also answers a guess with a nonce that it never sent."""
    return sent(service=Service.SIP, nonce=nonce, call=call)


def test_a_second_challenge_of_chan_sip_is_a_guess_with_an_unknown_nonce() -> None:
    """A From that is not UTF-8 suppresses its events: each further nonce of the session is a guess."""
    nonces = [again(b"%d" % number) for number in range(6)]
    assert Player().play(*ticks(0, 0), at(0, *nonces)).attempts == ["192.0.2.7 counted, claimed"] * 5


def test_a_repeated_or_first_challenge_of_chan_sip_is_no_guess() -> None:
    """The same nonce answers a retransmission; another session, or one after a 403, begins with its own."""
    for others in (
        [again(b"1")],
        [again(b"2", b"call-2")],
        [sent(service=Service.SIP, status=403), again(b"2")],
    ):
        happened = Player().play(*ticks(0, 0), at(0, again(b"1"), *others))
        assert happened.counted == (others[0].status == 403)


def test_a_phone_of_chan_sip_may_ask_for_another_challenge() -> None:
    """A phone that succeeded within a day may subscribe again without credentials under one Call-ID."""
    nonces = [again(b"%d" % number) for number in range(6)]
    logged_in = at(0, login(ATTACKER, service=Service.SIP))
    assert Player().play(*ticks(0, 0), logged_in, at(80_000, *nonces)).counted == 0


def test_a_phone_of_chan_sip_may_have_another_address_of_its_64() -> None:
    """A success of one address stands for its whole /64, because a host may change its address."""
    nonces = [sent("2001:db8::8", nonce=b"%d" % number, service=Service.SIP) for number in range(6)]
    for phone, counted in (("2001:db8::7", 0), ("2001:db8:0:1::7", 5)):
        logged_in = at(0, login(phone, service=Service.SIP))
        assert Player().play(*ticks(0, 0), logged_in, at(10, *nonces)).counted == counted


def test_a_second_challenge_is_no_guess_if_ami_was_away_in_between() -> None:
    """While AMI was away the phone may have succeeded, and its next registration begins with a challenge."""
    guard = Player()
    away = [at(1, Sources(ami=False)), at(2, Sources()), *ticks(3, 3)]
    assert guard.play(*ticks(0, 0), at(0, again(b"1")), *away, at(4, again(b"2"))).counted == 0
    assert guard.play(at(5, again(b"3"))).counted == 1


def test_a_second_challenge_that_ami_reports_counts_once() -> None:
    """AMI reports the second challenge too, which is the same attempt."""
    reported = [challenged(service=Service.SIP, nonce=b"%d" % number) for number in range(2)]
    nonces = [again(b"%d" % number) for number in range(2)]
    for step in (
        at(0, nonces[0], reported[0], nonces[1], reported[1]),
        at(0, *nonces, *reported),
        at(0, *reported, *nonces),
    ):
        assert Player().play(*ticks(0, 0), step, *ticks(1, 8)).counted == 1


def test_a_refusal_needs_ami_to_know_logins() -> None:
    """Without AMI a 403 is no guess, because it may be the dialplan's."""
    happened = Player().play(
        at(0, Sources(ami=False)),
        *ticks(0, 0),
        at(0.5, sent(service=Service.SIP, nonce=b"n")),
        refused(),
    )
    assert happened.counted == 0
