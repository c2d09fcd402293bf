"""Transcripts: attempts that the wire alone shows, and log lines that the wire confirms or refutes."""

from collections.abc import Iterator
from ipaddress import ip_address

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
    sent,
    wrong,
)
from tests.support.transcript import PBX, Banned, Loss, Player, Sources, Step, Tick, at, ticks

from ringfence.detect.sessions import MOST_REGISTERED
from ringfence.values.event import AMI, SecurityEvent, Service, SourceId, Transport
from ringfence.values.friend import Contact
from ringfence.values.packet import CopiedAnswer, CopiedRequest

FULL = ["guess bans 192.0.2.7/32 by sip after 5"]


def reported(time: float = 0.0, call: bytes = b"before") -> Step:
    """Return a challenge that AMI reports, so that AMI is expected to report all challenges from then on."""
    return at(time, sent(PHONE, call), challenged(PHONE, call))


def line(address: str = ATTACKER, call: bytes = b"call-1") -> SecurityEvent:
    """Return a NOTICE line of a wrong password, which a sender can forge."""
    return failed(address, call, by=NOTICE, forgeable=True)


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


@pytest.mark.parametrize("late", [100_000.0, -100_000.0])
def test_an_event_with_a_wrong_time_hides_no_later_guess(late: float) -> None:
    """A client of AMI over HTTP can forge events with any time; what the wire sees counts all the same."""
    forged = [failed(by=AMI, late=late, forgeable=True, tampered=True), failed(BYSTANDER, late=late)]
    guesses = [
        step
        for n in range(5)
        for step in (at(1 + n, copied(call=b"c%d" % n, nonce=b"n%d" % n), sent(call=b"c%d" % n, sequence=2)),)
    ]
    happened = Player().play(at(0, *forged), *guesses, *ticks(6, 12))
    assert len(happened.of("counted")) >= 5
    assert len(happened.bans) == 1


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


def test_a_hidden_guess_of_a_friend_by_tcp_counts_if_its_request_was_copied() -> None:
    """The friend has written the request, so twenty of them within a minute are a ban of TCP.

    The account in a hidden request is text of its sender: it cannot be the account that works there.
    """
    guard = Player()
    guard.play(at(0, friend()))
    tries = [copied(PHONE, b"%d" % n, nonce=b"1/n", transport=Transport.TCP) for n in range(20)]
    tries = [evolve(one, account="204", digest=b"%d" % n) for n, one in enumerate(tries)]
    hidden = [
        at(1 + n, one, sent(PHONE, one.call_ids[0], sequence=2, evasive=True, transport=Transport.TCP))
        for n, one in enumerate(tries)
    ]
    happened = guard.play(*hidden)
    assert happened.of("counted as a friend's") == [PHONE] * 20
    assert happened.bans == [f"guess bans {PHONE}/32 by sip-tcp for 3600 s after 20"]


@pytest.mark.parametrize(
    ("connected", "transport", "attempts"),
    [([(ATTACKER, 5062)], Transport.TCP, 5), ([], Transport.TCP, 0), ([(ATTACKER, 5062)], Transport.UDP, 0)],
    ids=["a connection", "forged segments", "datagrams"],
)
def test_a_closed_window_hides_no_guess_with_an_old_nonce(
    connected: list[tuple[str, int]], transport: Transport, attempts: int
) -> None:
    """By TCP the kernel's connection shows the sender, so a long ``nonce_lifetime`` is no way around."""
    guard = Player(connected=connected)
    asked = [copied(call=b"c%d" % n, nonce=b"1/old%d" % n, transport=transport) for n in range(5)]
    guesses = [at(100 + n, evolve(one, diverted=True)) for n, one in enumerate(asked)]
    happened = guard.play(*guesses, *ticks(105, 115))
    assert happened.attempts == ["192.0.2.7 counted, proven by handshake"] * attempts
    assert happened.bans == FULL[:attempts]


@pytest.mark.parametrize("transport", [Transport.TLS, Transport.TCP, Transport.WS])
def test_a_guess_by_a_connection_hides_none_by_udp(transport: Transport) -> None:
    """AMI reports one guess of a Call-ID, and nothing but the wire the other one."""
    seen = at(0.9, failed(call=b"call-1", transport=transport))
    assert Player().play(*ticks(0, 0), seen, *guessed(1)).counted == 2
    same = at(0.9, failed(call=b"call-1"))
    assert Player().play(*ticks(0, 0), same, *guessed(1)).counted == 1


def test_an_older_report_of_its_call_id_hides_no_blind_guess_that_shows_late() -> None:
    """AMI reported another guess of the session, 15 s before the one that nothing answers."""
    question, _ = guessed(1)
    earlier = at(1.1, failed(call=b"call-1", nonce=b"1/n"))
    blind = at(16.1, copied(call=b"call-1", nonce=b"1/n"))
    other = at(45, copied(BYSTANDER, sequence=1), sent(BYSTANDER, sequence=1))
    steps = [*ticks(0, 0), question, earlier, *ticks(2, 16), blind]
    assert Player().play(*steps, *ticks(17, 44), other, *ticks(46, 55)).counted == 2


def test_each_guess_with_a_pause_before_it_counts_once() -> None:
    """AMI reports each, and the wire sees no answer: the kernel drops those to a stranger that asks much."""
    steps: list[Step] = [*ticks(0, 0), next(guessed(1))]
    for number in range(4):
        when = 1.1 + 45 * number
        asked = copied(call=b"call-1", nonce=b"1/n", sequence=4 + number)
        guess = failed(call=b"call-1", nonce=b"1/n", response=b"%d" % number)
        other = b"o%d" % number
        later = at(when + 30, copied(BYSTANDER, other, sequence=1), sent(BYSTANDER, other, sequence=1))
        steps += [at(when, asked, guess), *ticks(when, when + 29), later, *ticks(when + 31, when + 44)]
    assert Player(rules=["slow"]).play(*steps).counted == 4


@pytest.mark.parametrize("reported", [0, 1, 2])
def test_a_report_hides_one_blind_guess_that_shows_late(reported: int) -> None:
    """AMI and the wire report a guess every eleven seconds, and AMI ``reported`` of those between them."""
    steps: list[Step] = [*ticks(0, 0), next(guessed(1))]
    for number in range(4):
        asked = [copied(nonce=b"1/n", sequence=4 + 2 * number + n) for n in range(2)]
        events = [failed(nonce=b"1/n", response=b"%d %d" % (number, n)) for n in range(2)]
        when = 1.1 + 11 * number
        steps += [at(when, asked[0], sent(sequence=4 + 2 * number), events[0]), *ticks(when, when)]
        steps += [at(when + 0.1, asked[1], *(events[1:] if number < reported else ()))]
    other = at(45, copied(BYSTANDER, sequence=1), sent(BYSTANDER, sequence=1))
    happened = Player(rules=["slow"]).play(*steps, other, *ticks(46, 70))
    assert happened.counted == 8


def test_a_blind_guess_of_a_discarded_session_counts_once() -> None:
    """AMI has reported it, before further sessions of its sender took the place of its own.

    One that AMI has not reported counts all the same, and so does one that comes after these sessions.
    """

    def guess(time: float, *calls: bytes) -> list[Step]:
        guesses = [(sent(call=call, nonce=call), copied(call=call, nonce=call)) for call in calls]
        later = copied(BYSTANDER, b"after " + calls[0]), sent(BYSTANDER, b"after " + calls[0], sequence=2)
        return [*(at(time, *one) for one in guesses), at(time + 0.1, *later)]

    guard = Player(sessions=16, changed={"guess": {"attempts": 100}})
    calls = [b"1/a", b"1/b", b"d", b"e", b"f", b"g"]
    reports = [at(1 + number / 10, failed(call=call)) for number, call in enumerate(calls)]
    happened = guard.play(guess(0, b"1/a", b"1/b", b"1/c"), reports, *ticks(2, 15))
    assert happened.counted == len(reports) + 1
    assert guard.play(guess(16, b"1/h"), *ticks(17, 31)).counted == 1


def test_a_request_that_names_several_users_is_hidden() -> None:
    """No phone does that, and the answer names a user of the sender's choice: here the friend's own."""
    guard = Player()
    guard.play(at(0, friend()))
    asked = copied(PHONE, b"two", nonce=b"1/n", transport=Transport.TCP)
    happened = guard.play(at(1, asked, sent(PHONE, b"two", sequence=2, transport=Transport.TCP)))
    assert happened.of("counted as a friend's") == [PHONE]
    assert not [alarm for alarm in happened.alarms if alarm.startswith("phone.broken")]


def test_a_new_friend_is_observed_for_a_day() -> None:
    """The kernel copies the conversation where an account works for the first time."""
    guard = Player()
    guard.play(at(0, login()), at(1, login()))
    assert guard.observed() == {PHONE}
    guard.play(at(2, Contact(PBX, Service.PJSIP, "300", ip_address(BYSTANDER))), at(3, friend(BYSTANDER)))
    assert guard.observed() == {PHONE, BYSTANDER}
    guard.play(at(7_000, login(BYSTANDER)), at(86_399, login(BYSTANDER)), at(86_399, login()))
    assert guard.observed() == {PHONE, BYSTANDER}
    guard.play(at(86_403, login()), *ticks(86_403, 86_403))
    assert guard.observed() == set()


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
def test_a_line_is_confirmed_by_nothing_but_its_own_challenge(other: CopiedAnswer) -> None:
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


@pytest.mark.parametrize(("age", "standing"), [(8.0, "forged"), (11.0, "unconfirmed"), (21.0, "unconfirmed")])
def test_an_old_line_is_not_forged(age: float, standing: str) -> None:
    """If a line is read long after it was written, its challenge may be forgotten, or may have been lost.

    The daemon reads such a line after a restart: the wire showed it nothing before.
    """
    old = evolve(line(), time=-age)
    start = (at(0, Sources(ami=False)), at(0, Loss()), *ticks(0, 0))
    happened = Player().play(*start, at(20, old), *ticks(21, 22))
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


def phone_logs_in(time: float = 0.0) -> Step:
    """Return a phone's registration, which shows that AMI reports successes."""
    return at(time, sent(PHONE), challenged(PHONE), login(PHONE))


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


@pytest.mark.parametrize("closes", [False, True])
def test_guesses_of_a_sender_that_reads_no_answer_count_soon(closes: bool) -> None:  # noqa: FBT001 - as above
    """By TCP they count although no other sender is answered, also if their window closes after them."""
    tcp = Transport.TCP
    asked = copied(sequence=1, transport=tcp)
    closed = evolve(asked, call_ids=(), sequences=(), digest=b"", diverted=True)
    steps = [*ticks(0, 0), at(1, asked, sent(nonce=b"1/n", sequence=1, transport=tcp))]
    for number in range(1, 6):
        guess = copied(call=b"call-%d" % number, nonce=b"1/n", transport=tcp, sequence=number + 5)
        steps.append(at(1.1 + number / 10, evolve(guess, diverted=not closes)))
    steps.append(at(1.7, *([closed] if closes else [])))
    happened = Player(connected=[(ATTACKER, asked.port)] * 5).play(*steps, *ticks(2, 3))
    assert happened.attempts == ["192.0.2.7 counted, proven by handshake"] * 5
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


@pytest.mark.parametrize("known", [False, True])
def test_a_blind_guess_by_tcp_counts_if_the_kernel_knows_its_connection(known: bool) -> None:  # noqa: FBT001 - a parameter
    """Its nonce went by TCP too, and so proves no sender: a forged segment is no connection.

    Without a connection it counts when its answer leaves.
    """
    tcp = Transport.TCP
    asked = copied(call=b"call-1", sequence=1, transport=tcp)
    steps = [
        *ticks(0, 0),
        at(1, asked, sent(call=b"call-1", nonce=b"1/n", sequence=1, transport=tcp)),
        at(1.1, copied(call=b"call-1", nonce=b"1/n", transport=tcp)),
        at(6, copied(BYSTANDER, sequence=1), sent(BYSTANDER, sequence=1)),
    ]
    connected = [(ATTACKER, asked.port)] if known else []
    guard = Player(connected=connected)
    assert guard.play(*steps, *ticks(7, 20)).counted == int(known)
    answer = at(21, sent(call=b"call-1", nonce=b"2/n", sequence=2, transport=tcp))
    assert guard.play(answer).counted == int(not known)


def test_a_blind_guess_that_shows_late_counts_although_its_question_was_reported() -> None:
    """AMI's report of the question is no report of the guess, which suppressed its own."""
    question, _ = guessed(1)
    steps = [
        *ticks(0, 0),
        question,
        at(1, challenged(call=b"call-1")),
        at(1.1, copied(call=b"call-1", nonce=b"1/n")),
    ]
    other = at(30, copied(BYSTANDER, sequence=1), sent(BYSTANDER, sequence=1))
    assert Player().play(*steps, *ticks(2, 29), other, *ticks(31, 40)).counted == 1


@pytest.mark.parametrize("told", [False, True])
def test_a_blind_guess_that_shows_late_counts_once(told: bool) -> None:  # noqa: FBT001 - a parameter
    """If no sender is answered for long, AMI's report of the guess is too old to be matched by its number."""
    question, _ = guessed(1)
    steps = [*ticks(0, 0), question, at(1.1, copied(call=b"call-1", nonce=b"1/n"))]
    if told:
        steps.append(at(1.1, failed(call=b"call-1", nonce=b"1/n")))
    other = at(30, copied(BYSTANDER, sequence=1), sent(BYSTANDER, sequence=1))
    assert Player().play(*steps, *ticks(2, 29), other, *ticks(31, 40)).counted == 1


def test_an_event_that_is_read_too_late_excuses_no_blind_guess() -> None:
    """The event is left out, because copied packets show each guess. They do so when a sender is answered."""
    question, _ = guessed(1)
    guess = at(1.1, copied(call=b"call-1", nonce=b"1/n"))
    event = at(13.1, failed(call=b"call-1", nonce=b"1/n", response=b"r", late=12.0))
    other = at(30, copied(BYSTANDER, sequence=1), sent(BYSTANDER, sequence=1))
    steps = [*ticks(0, 0), question, guess, *ticks(2, 13), event, *ticks(14, 29), other, *ticks(31, 40)]
    assert Player().play(*steps).counted == 1


@pytest.mark.parametrize("ami", [False, True])
def test_a_line_that_is_read_too_late_excuses_no_blind_guess(*, ami: bool) -> None:
    """The line is left out too, also if AMI's event of the guess has been left out before."""
    question, _ = guessed(1)
    guess = at(1.1, copied(call=b"call-1", nonce=b"1/n"))
    event = at(13.1, failed(call=b"call-1", nonce=b"1/n", response=b"r", late=12.0))
    late = [*([event] if ami else []), at(14.1, failed(call=b"call-1", by=NOTICE, late=13.0))]
    other = at(30, copied(BYSTANDER, sequence=1), sent(BYSTANDER, sequence=1))
    steps = [*ticks(0, 0), question, guess, *ticks(2, 13), *late, *ticks(15, 29), other, *ticks(31, 40)]
    assert Player().play(*steps).counted == 1


@pytest.mark.parametrize(
    ("reported", "counted"),
    [(Transport.UDP, 1), (Transport.UNKNOWN, 1), (Transport.TLS, 2), (Transport.TCP, 2)],
)
def test_a_blind_guess_that_shows_late_is_no_other_that_came_by_a_connection(
    reported: Transport, counted: int
) -> None:
    """AMI reports the other one, which has the same Call-ID; a phone uses one transport for a Call-ID.

    A report that names no transport may be of either.
    """
    question, _ = guessed(1)
    guess = at(1.1, copied(call=b"call-1", nonce=b"1/n"), failed(call=b"call-1", transport=reported))
    other = at(30, copied(BYSTANDER, sequence=1), sent(BYSTANDER, sequence=1))
    steps = [*ticks(0, 0), question, guess, *ticks(2, 29), other, *ticks(31, 40)]
    assert Player().play(*steps).counted == counted


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
    *("not copied", "told late"),
)


@pytest.mark.parametrize("which", REGISTRATION)
def test_a_registration_at_chan_sip_that_the_wire_sees_makes_a_friend(which: str) -> None:
    """AMI reports that the password was right, the wire that a proven REGISTER of this address succeeded."""
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
        at({"told late": 13, "long ago": 66}.get(which, 1.2), told),
    )
    assert guard.is_friend(ATTACKER) is (which in ("seen", "told late"))


@pytest.mark.parametrize(("number", "is_friend"), [(0, False), (1, True), (MOST_REGISTERED, True)])
def test_each_phone_of_an_office_at_chan_sip_makes_a_friend(number: int, *, is_friend: bool) -> None:
    """All phones of an office register, and AMI's report of one is read later; the latest are remembered."""
    registered = [
        at(
            1,
            copied(call=b"%d" % one, sequence=1),
            sent(call=b"%d" % one, nonce=b"n%d" % one, service=Service.SIP, sequence=1),
            copied(call=b"%d" % one, nonce=b"n%d" % one, registers=f"{200 + one}"),
            sent(call=b"%d" % one, service=Service.SIP, status=200, sequence=2),
        )
        for one in range(MOST_REGISTERED + 1)
    ]
    guard = Player()
    told = login(ATTACKER, service=Service.SIP, account=f"{200 + number}")
    guard.play(*ticks(0, 0), *registered, at(13, told))
    assert guard.is_friend(ATTACKER) is is_friend


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


def test_a_login_excuses_no_other_request_of_its_sender() -> None:
    """Somebody with one password, who hides guesses at others, logs in with it all the time."""
    question, _ = guessed(1)
    asked = copied(call=b"call-1", nonce=b"1/n")
    other = at(2, copied(BYSTANDER, sequence=1), sent(BYSTANDER, sequence=1))
    succeeded = at(1.2, login(ATTACKER, b"own"))
    found = Player().play(*ticks(0, 0), question, at(1.1, asked), succeeded, other, *ticks(3, 20))
    assert len(found.attempts) == 1


def own_login() -> tuple[CopiedRequest, CopiedAnswer, SecurityEvent]:
    """Return a login of the attacker with its own account: the request, its answer and AMI's report."""
    request = evolve(copied(nonce=b"1/n", sequence=50), digest=b"own")
    return request, sent(status=200, sequence=50), login(ATTACKER)


def at_another_account(number: int, **more: object) -> list[CopiedRequest]:
    """Return guesses that AMI does not report, with the Call-ID of the login and a proven nonce."""
    asked = copied(nonce=b"1/n")
    return [
        evolve(asked, sequences=(one,), digest=b"%d" % one, **more)  # type: ignore[arg-type]
        for one in range(2, 2 + number)
    ]


ASKED = at(1, copied(sequence=1), sent(nonce=b"1/n", sequence=1))


@pytest.mark.parametrize("evasive", [False, True])
def test_a_login_excuses_no_refusal_with_another_number(evasive: bool) -> None:  # noqa: FBT001 - a parameter
    """An attacker with one password sends a login, and five guesses with its Call-ID at once.

    AMI reports the login before the wire has the refusals. A refusal names the number of what it refuses.
    """
    request, answer, reported = own_login()
    guesses = at_another_account(5)
    refused_all = [sent(nonce=b"2/n", sequence=guess.sequences[0], evasive=evasive) for guess in guesses]
    steps = at(2, request, *guesses, answer), at(2.1, reported), at(2.2, *refused_all)
    happened = Player().play(*ticks(0, 0), ASKED, *steps, *ticks(3, 20))
    assert happened.counted == 5


@pytest.mark.parametrize("order", ["AMI first", "AMI last", "no answer"])
@pytest.mark.parametrize("disguise", ["none", "a nonce of chan_sip", "too many Call-IDs", "a question"])
def test_a_login_that_the_wire_saw_excuses_no_blind_guess(order: str, disguise: str) -> None:
    """Nor does it while its own answer is not seen: it may be the one that AMI reports.

    Its request may have a second nonce, or hide its Call-ID; and its answer may seem to be another request's.
    No phone disguises a login so, and this one counts too if its answer is not known to be its own.
    """
    request, answer, reported = own_login()
    if disguise == "a nonce of chan_sip":
        request = evolve(request, nonces=(b"junk",))
    elif disguise == "too many Call-IDs":
        request = evolve(request, crowded=True, call_ids=(b"f", b"g"))
    junk = [evolve(copied(sequence=50), digest=b"junk")] * (disguise == "a question")
    guesses = at_another_account(5, diverted=True, redirected=True)
    steps = [at(2, request, *guesses, *junk)]
    if order == "AMI first":
        steps += [at(2.1, reported), at(2.2, answer)]
    else:
        steps += [at(2.1, *[answer] * (order == "AMI last"), reported)]
    other = at(9, copied(BYSTANDER, sequence=1), sent(BYSTANDER, sequence=1))
    happened = Player().play(*ticks(0, 0), ASKED, *steps, *ticks(3, 8), other, *ticks(10, 20))
    assert happened.counted in ((5,) if disguise == "none" else (5, 6))


@pytest.mark.parametrize("transport", [Transport.TLS, Transport.WSS, Transport.UNKNOWN, Transport.TCP])
def test_a_login_by_another_transport_excuses_no_blind_guess(transport: Transport) -> None:
    """The wire cannot read a login by TLS, so its answer is never seen."""
    guesses = at_another_account(5, diverted=True, redirected=True)
    steps = [at(2 + n, one, *[login(ATTACKER, transport=transport)] * 2) for n, one in enumerate(guesses)]
    assert Player().play(*ticks(0, 0), ASKED, *steps, *ticks(8, 20)).counted == 5


@pytest.mark.parametrize("transport", [Transport.TCP, Transport.WS])
def test_a_login_on_another_connection_excuses_no_blind_guess(transport: Transport) -> None:
    """The attacker logs in on one connection, and guesses on another one behind a closed window."""
    found = []
    for port in (5062, 5063):
        guess = at_another_account(1, diverted=True, transport=Transport.TCP)
        reported = login(ATTACKER, transport=transport, port=port)
        guard = Player(connected=[(ATTACKER, 5062)])
        found.append(guard.play(*ticks(0, 0), ASKED, at(2, *guess, reported), *ticks(3, 20)).counted)
    assert found == [0, 1]


def test_each_login_excuses_one_request_without_an_answer() -> None:
    """Of five passwords whose answers are not seen, two are right."""
    requests = at_another_account(5, diverted=True)
    happened = Player().play(
        *ticks(0, 0), ASKED, at(2, *requests), at(2.1, *[login(ATTACKER)] * 2), *ticks(3, 20)
    )
    assert happened.counted == 3


def test_a_challenge_because_of_an_old_nonce_takes_no_login_away() -> None:
    """AMI reports no login for it, only for the next request, whose answer is not seen."""
    first, second = at_another_account(2, diverted=True)
    old = at(2, first, sent(nonce=b"2/n", sequence=2, accepted=True))
    steps = old, at(2.1, second, login(ATTACKER))
    assert Player().play(*ticks(0, 0), ASKED, *steps, *ticks(3, 20)).attempts == []


@pytest.mark.parametrize(
    ("method", "password", "counted"),
    [("REGISTER", True, 1), ("REGISTER", False, 2), ("MESSAGE", True, 2), ("INVITE", True, 2)],
)
def test_chan_sips_login_excuses_a_registration(method: str, password: bool, counted: int) -> None:  # noqa: FBT001
    """Its events name the account of a REGISTER, but the dialled number of a call, and no other request."""
    asked = at(1, copied(sequence=1), sent(nonce=b"n", sequence=1, service=Service.SIP))
    one = evolve(copied(nonce=b"n"), diverted=True, account="204", method=method)
    first, second = (evolve(one, sequences=(n,), digest=b"%d" % n) for n in (2, 3))
    reported = evolve(login(ATTACKER, b"0x7f", service=Service.SIP), password=password)
    steps = at(2, first), at(2.1, reported), at(3, Tick()), at(4, second), at(5, Tick())
    assert Player().play(*ticks(0, 0), asked, *steps, *ticks(6, 20)).counted == counted


@pytest.mark.parametrize("nonce", [b"junk", b"1/junk"])
def test_a_login_excuses_a_request_with_too_many_nonces(nonce: bytes) -> None:
    """Which part of Asterisk checks it is not known, so PJSIP's login may be the one."""
    crowded = evolve(copied(nonce=nonce), crowded=True, diverted=True)
    happened = Player().play(*ticks(0, 0), ASKED, at(2, crowded, login(ATTACKER)), *ticks(3, 20))
    assert happened.attempts == []


@pytest.mark.parametrize(
    ("service", "status"),
    [
        (Service.PJSIP, 481),
        (Service.PJSIP, 404),
        (Service.PJSIP, 403),
        (Service.SIP, 481),
        (Service.SIP, 404),
    ],
)
def test_an_answer_to_a_bye_accepts_no_blind_guess(service: Service, status: int) -> None:
    """Each has the Call-ID and number of the BYE behind it, so that the BYE's answer seems to be its own.

    PJSIP's 403 refuses no password either.
    """
    steps = [*ticks(0, 0)]
    for number in range(1, 6):
        call, nonce = b"call-%d" % number, b"1/%d" % number
        asked = copied(call=call, sequence=1), sent(call=call, nonce=nonce, sequence=1, service=service)
        guess = evolve(copied(call=call, nonce=nonce), diverted=True, redirected=True)
        bye = evolve(copied(call=call), digest=b"bye", method="BYE")
        answer = sent(call=call, status=status, sequence=2, service=service)
        steps += [at(number, *asked), at(number + 0.1, guess, bye, answer), at(number + 0.5, Tick())]
    happened = Player().play(*steps)
    assert happened.attempts == ["192.0.2.7 counted, proven by nonce"] * 5
    assert happened.bans == FULL


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


def again(nonce: bytes, call: bytes = b"call-1") -> CopiedAnswer:
    """Return chan_sip's challenge, which also answers a guess with a nonce that it never sent."""
    return sent(service=Service.SIP, nonce=nonce, call=call)


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


def test_refusals_alone_show_no_guess() -> None:
    """Of a request that was not copied, nothing is known: neither of chan_sip's refusals, nor of PJSIP's."""
    for service in (Service.SIP, Service.PJSIP):
        refusals = [sent(service=service, nonce=b"1/%d" % number) for number in range(200)]
        forbidden = sent(service=service, status=403)
        happened = Player().play(*ticks(0, 0), at(0, *refusals, forbidden), *ticks(1, 20))
        assert happened.attempts == []


# -- connections that cannot be read ---------------------------------------------------------------------


UNREAD = CopiedRequest(ip_address(ATTACKER), 5062, (), (), unread=True, transport=Transport.TCP)


def refusals(number: int, **more: object) -> list[CopiedAnswer]:
    """Return refusals by TCP of requests that could not be read."""
    return [sent(call=b"%d" % n, transport=Transport.TCP, **more) for n in range(number)]  # type: ignore[arg-type]


def test_the_guesses_on_an_unread_connection_count_by_their_answers_after_twenty() -> None:
    """A sender that makes its requests unreadable is counted by the refusals after the twentieth."""
    guard = Player()
    assert guard.play(*ticks(0, 0), at(1, UNREAD), at(2, *refusals(20))).attempts == []
    more = at(3, *[sent(call=b"more-%d" % n, transport=Transport.TCP) for n in range(5)])
    happened = guard.play(more)
    assert happened.attempts == ["192.0.2.7 counted, proven by handshake"] * 5
    assert happened.bans == FULL


def test_the_challenges_of_chan_sip_on_an_unread_connection_count_but_for_the_first() -> None:
    """A second challenge without a 403 answers credentials with an invented nonce, so it is a guess."""
    guard = Player()
    challenges = [evolve(one, port=UNREAD.port) for one in refusals(6, service=Service.SIP)]
    happened = guard.play(*ticks(0, 0), at(1, UNREAD), at(2, *challenges))
    assert happened.attempts == ["192.0.2.7 counted, proven by handshake"] * 5
    assert happened.bans == FULL


@pytest.mark.parametrize(
    "why", ["readable", "login", "login at chan_sip", "no AMI", "UDP", "accepted", "later"]
)
def test_other_refusals_do_not_count_by_themselves(why: str) -> None:
    """They count of a sender with an unread connection, without a login that AMI would have reported."""
    guard = Player()
    service = Service.SIP if why.endswith("chan_sip") else Service.PJSIP
    guard.play(*ticks(0, 0), at(0, login(ATTACKER, service=service)) if "login" in why else at(0))
    guard.play(
        at(1, Sources(ami=why != "no AMI")), *ticks(1, 1), at(1, *[] if why == "readable" else [UNREAD])
    )
    by = Transport.UDP if why == "UDP" else Transport.TCP
    answers = [evolve(one, transport=by, accepted=why == "accepted") for one in refusals(30)]
    assert guard.play(at(7_201.0 if why == "later" else 2, *answers)).attempts == []


# -- observed friends ------------------------------------------------------------------------------------


def friend_refused(number: int, time: float, address: str = PHONE, **more: object) -> Step:
    """Return refusals to a friend, whose requests the kernel does not copy."""
    return at(time, *[sent(address, b"%d" % n, **more) for n in range(number)])  # type: ignore[arg-type]


@pytest.mark.parametrize("service", [Service.PJSIP, Service.SIP])
def test_a_friend_that_is_refused_again_and_again_is_observed(service: Service) -> None:
    """After twenty refusals without a success, a friend is observed until they have ended for ten minutes."""
    guard = Player()
    guard.play(at(0, friend()), friend_refused(20, 1, service=service))
    assert guard.observed() == set()
    guard.play(friend_refused(1, 2, service=service), *ticks(3, 3))
    assert guard.observed() == {PHONE}
    guard.play(friend_refused(1, 500, service=service), *ticks(1_099, 1_099))
    assert guard.observed() == {PHONE}
    guard.play(*ticks(1_100, 1_100))
    assert guard.observed() == set()


def test_the_friends_of_a_64_are_observed_together() -> None:
    """Twenty hidden guesses are all that one password gives in a /64, whatever new addresses log in there."""
    guard, phones = Player(), [f"2001:db8::{number}" for number in range(1, 4)]
    guard.play(at(0, friend(PHONE), *map(friend, phones[:2]), friend("2001:db8:0:1::1")))
    guard.play(friend_refused(20, 1, phones[0]), *ticks(2, 2))
    assert guard.observed() == set()
    guard.play(at(3, challenged(phones[0], b"0"), login(phones[0], b"0")))  # it explains one refusal
    guard.play(friend_refused(1, 4, phones[1]))
    assert guard.observed() == set()
    guard.play(friend_refused(1, 5, phones[1]))
    assert guard.observed() == {*phones[:2]}
    guard.play(at(6, login(phones[2])), *ticks(7, 7))
    assert guard.observed() == {*phones}
    guard.play(*ticks(605, 605))
    assert guard.observed() == set()


def test_the_guesses_of_an_observed_friend_count_with_its_limits() -> None:
    """Its requests are copied, so each refused one with credentials is a guess, whatever AMI reports."""
    guard = Player()
    guard.play(at(0, friend(account="300")), friend_refused(21, 1), *ticks(2, 2))
    asked = at(3, sent(PHONE, b"nonce", nonce=b"1/n"))
    tries = [copied(PHONE, b"try-%d" % n, nonce=b"1/n") for n in range(30)]
    refused_all = [
        at(4 + n / 10, one, sent(PHONE, one.call_ids[0], sequence=2)) for n, one in enumerate(tries)
    ]
    happened = guard.play(asked, refused_all)
    assert happened.attempts == [f"{PHONE} counted as a friend's, proven by nonce"] * 30
    assert len(happened.bans) == 1


def test_a_success_explains_the_refusals_of_its_call() -> None:
    """An office whose phones all register gets a refusal for each success, and is not observed.

    The logins of its phones explain no refusal with another Call-ID.
    """
    guard = Player()
    guard.play(at(0, friend(), login(PHONE)))
    for minute in range(10):
        now, calls = 1 + 60 * minute, [b"%d" % n for n in range(10)]
        guard.play(at(now, *[challenged(PHONE, call) for call in calls]), friend_refused(10, now))
        guard.play(at(now + 1, *[login(PHONE, call) for call in calls]))
    assert guard.observed() == set()
    guard.play(friend_refused(21, 700), at(701, *[challenged(PHONE), login(PHONE)] * 21))
    assert guard.observed() == {PHONE}


PJSIP, CHAN_SIP = Service.PJSIP, Service.SIP


@pytest.mark.parametrize(
    ("service", "before"),
    [
        (PJSIP, []),
        (PJSIP, [challenged(PHONE), sent(PHONE)]),
        (PJSIP, [challenged(PHONE), sent(PHONE, accepted=True)]),
        (PJSIP, [challenged(PHONE, account="205")]),
        (PJSIP, [challenged(PHONE, transport=Transport.TLS)]),
        (PJSIP, [challenged(PHONE, tampered=True)]),
        (PJSIP, [challenged(PHONE, by=SECURITY)]),
        (CHAN_SIP, []),
        (CHAN_SIP, [challenged(PHONE, service=CHAN_SIP), sent(PHONE, service=CHAN_SIP)]),
        (CHAN_SIP, [challenged(PHONE, b"another", service=CHAN_SIP)]),
    ],
    ids=[
        *("no challenge", "its own", "too old a nonce", "another account", "TLS", "tampered", "line"),
        *("no challenge at chan_sip", "its own there", "another session"),
    ],
)
def test_a_login_pays_for_no_hidden_guess_with_its_call_id(
    service: Service, before: list[SecurityEvent | CopiedAnswer]
) -> None:
    """A login explains the refusals of its own request only, so a guess before each login is seen."""
    guard = Player()
    guard.play(at(0, friend()))
    for number in range(21):
        guess = sent(PHONE, service=service)
        guard.play(at(1 + number, *before, guess, login(PHONE, service=service)))
    assert guard.observed() == {PHONE}


def test_a_challenge_that_cannot_leave_pays_for_no_hidden_guess() -> None:
    """AMI reports it too, so a login pays only for the refusals that name its account."""
    guard = Player()
    guard.play(at(0, friend()))
    for number in range(21):
        question, guess = challenged(PHONE), evolve(sent(PHONE), account="300")
        guard.play(at(1 + number, question, guess, question, sent(PHONE), login(PHONE)))
    assert guard.observed() == {PHONE}


@pytest.mark.parametrize(("later", "observed"), [(63.9, set()), (64.0, {PHONE})])
def test_a_login_explains_no_challenge_of_long_ago(later: float, observed: set[str]) -> None:
    """A phone answers a challenge within a minute."""
    guard = Player()
    guard.play(at(0, friend(), challenged(PHONE), sent(PHONE)), friend_refused(19, 1))
    guard.play(at(later, login(PHONE)), friend_refused(1, later))
    assert guard.observed() == observed


@pytest.mark.parametrize(
    "success",
    [login(PHONE, by=SECURITY), login(PHONE, tampered=True), login(BYSTANDER)],
    ids=["line", "tampered", "another"],
)
def test_only_a_login_that_ami_reports_explains_a_refusal(success: SecurityEvent) -> None:
    """Neither a line of the log nor a packet outside the grammar explains a refusal."""
    guard = Player()
    guard.play(at(0, friend()), friend_refused(20, 1), at(2, success), friend_refused(1, 3))
    assert PHONE in guard.observed()


def test_refusals_of_a_day_are_counted_together() -> None:
    """Twenty refusals in a day are many for a friend; those of the day before do not count."""
    for time, found in ((86_400.9, {PHONE}), (86_401.0, set())):
        guard = Player()
        guard.play(at(0, friend()), friend_refused(20, 1), friend_refused(1, time))
        assert guard.observed() == found


def test_a_stranger_is_never_observed() -> None:
    """The kernel copies a stranger's conversation anyway, and an accepted password is no refusal."""
    guard = Player()
    guard.play(friend_refused(100, 1), at(2, friend()), friend_refused(100, 3, status=403, accepted=True))
    guard.play(at(4, *[sent(PHONE, b"%d" % n, sender=None) for n in range(100)]))
    assert guard.observed() == set()
