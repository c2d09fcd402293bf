"""Transcripts: one attempt that several sources report counts once."""

from collections.abc import Callable

import pytest
from attrs import evolve
from tests.detect.transcripts.reports import (
    AMI,
    ATTACKER,
    NOTICE,
    PHONE,
    SECURITY,
    challenged,
    copied,
    failed,
    misdialled_by_notice,
    probed,
    report,
    sent,
    wrong,
    wrong_by_notice,
)
from tests.support.transcript import Loss, Player, Sources, at, ticks

from ringfence.values.event import EventKind, SecurityEvent, Service, SourceId, Transport


def test_every_source_of_one_attempt_is_known() -> None:
    """AMI, both kinds of log line and the wire report one guess: one attempt, with all its sources."""
    guard = Player()
    happened = guard.play(
        at(0, sent(nonce=b"n"), failed(nonce=b"n")),
        at(1, failed(by=SECURITY, nonce=b"n"), failed(by=NOTICE)),
        *ticks(2, 4),
    )
    assert happened.attempts == ["192.0.2.7 counted, proven by nonce"]
    assert guard.sources_of(ATTACKER) == [{AMI, SECURITY, NOTICE}]


@pytest.mark.parametrize("first", [0, 1])
def test_the_order_of_the_sources_changes_nothing(first: int) -> None:
    """The order does not matter: a line that comes before AMI's event is of the same attempt."""
    both = [failed(by=NOTICE), failed()]
    happened = Player().play(at(0, sent(), both[first], both[1 - first]), *ticks(1, 3))
    assert happened.counted == 1


def test_the_same_address_under_two_call_ids_makes_two_attempts() -> None:
    """AMI reports one session and the log another, so neither reports the other's attempt."""
    for call, attempts in ((b"call-1", 1), (b"call-2", 2)):
        guard = Player()
        happened = guard.play(
            at(0, sent(), sent(call=b"call-2"), failed()),
            at(1, failed(call=call, by=SECURITY)),
            *ticks(2, 4),
        )
        assert happened.counted == attempts


def test_the_most_that_one_source_reports_is_the_number() -> None:
    """AMI reports three guesses of a session and the log two, and three count in any order."""
    for order in ("AALLA", "LLAAA", "ALALA"):
        entries = [failed() if one == "A" else failed(by=SECURITY) for one in order]
        assert Player().play(at(0, sent(), *entries), *ticks(1, 3)).counted == 3


@pytest.mark.parametrize("wire", [True, False])
@pytest.mark.parametrize("late", [11.0, 70.0])
def test_a_line_that_comes_too_late_is_left_out(late: float, *, wire: bool) -> None:
    """AMI was connected when the guesses failed, so their late lines are neither attempts nor forgeries."""
    happened = Player().play(
        at(0, Sources(wire=wire), sent(), failed(), failed()),
        *ticks(0.5, late - 0.5),
        at(late, failed(by=NOTICE, late=late), failed(by=SECURITY, late=late)),
        *ticks(late + 0.5, late + 4),
    )
    assert happened.attempts == ["192.0.2.7 counted, claimed"] * 2


@pytest.mark.parametrize(("lost", "events", "attempts"), [(False, 2, 1), (True, 1, 1), (True, 2, 2)])
def test_an_event_that_is_read_too_late_is_left_out(*, lost: bool, events: int, attempts: int) -> None:
    """The wire has counted one guess when AMI's events are read 12 s later; it may have lost packets."""
    happened = Player().play(
        at(0, copied(sequence=1), sent(nonce=b"n", sequence=1)),
        at(1, copied(nonce=b"n"), sent(nonce=b"m", sequence=2), *([Loss()] if lost else [])),
        *ticks(1.5, 12.5),
        at(13, *(failed(nonce=b"n", response=b"%d" % n, late=12.0) for n in range(events))),
        *ticks(13.5, 15),
    )
    assert happened.counted == attempts


def test_an_event_of_chan_sip_that_is_left_out_hides_no_lost_guess() -> None:
    """The wire has counted one guess and lost another one when AMI's events of both are read 12 s later."""
    sip = Service.SIP
    happened = Player().play(
        at(0, copied(sequence=1), sent(nonce=b"n", service=sip, sequence=1)),
        at(1, copied(nonce=b"n", registers="204"), sent(nonce=b"m", service=sip, sequence=2), Loss()),
        *ticks(1.5, 12.5),
        at(13, *(wrong(nonce=b"n", response=b"%d" % n, late=12.0) for n in range(2))),
        *ticks(13.5, 15),
    )
    assert happened.counted == 2


def test_an_event_that_is_left_out_hides_no_later_guess() -> None:
    """The wire counts one guess, AMI's event of it is read 12 s late, and the wire sees the next guess."""
    happened = Player().play(
        at(0, copied(sequence=1), sent(nonce=b"n", sequence=1)),
        at(1, copied(nonce=b"n"), sent(nonce=b"m", sequence=2)),
        *ticks(1.5, 12.5),
        at(13, failed(nonce=b"n", response=b"r", late=12.0)),
        at(14, copied(nonce=b"m", sequence=3), sent(nonce=b"o", sequence=3)),
        *ticks(14.5, 16),
    )
    assert happened.counted == 2


@pytest.mark.parametrize("events", [1, 2])
def test_a_late_event_of_a_guess_that_no_copied_packet_shows_counts(events: int) -> None:
    """A guess has an invented nonce, no answer to it leaves, and AMI is read 12 s late.

    Of two events only one is of that guess.
    """
    happened = Player().play(
        at(0, copied(call=b"asks", sequence=1), sent(call=b"asks", nonce=b"n", sequence=1)),
        at(1, copied(nonce=b"invented")),
        *ticks(1.5, 12.5),
        at(13, *(failed(nonce=b"invented", response=b"%d" % n, late=12.0) for n in range(events))),
        *ticks(13.5, 15),
    )
    assert happened.counted == 1


def test_a_line_that_was_only_listed_leaves_no_late_event_out() -> None:
    """Nothing confirms the line, so it counts as no attempt. AMI's event of the guess is read 12 s late."""
    happened = Player(sources=("AMI", "log")).play(
        at(0, failed(by=NOTICE)), *ticks(0.5, 11.5), at(12, failed(late=12.0))
    )
    assert happened.attempts == ["192.0.2.7 unconfirmed, claimed", "192.0.2.7 counted, claimed"]


def test_a_late_event_whose_sender_asked_nothing_since_counts() -> None:
    """The kernel copies the requests of others, and AMI's events are read 12 s late: nothing else counted."""
    guard = Player()
    happened = guard.play(at(0, copied("192.0.2.8")), at(13, failed(late=12.0)))
    assert happened.counted == 1


@pytest.mark.parametrize("later", [0.0, 0.3])
def test_a_later_challenge_confirms_no_late_line(later: float) -> None:
    """A line is 12 s late, and its sender asks again under the same Call-ID: AMI has reported the guess."""
    line = failed(by=NOTICE, late=12.0)
    again = [at(12, sent(), line)] if not later else [at(12, line), at(12 + later, sent())]
    happened = Player().play(at(0, sent(), failed()), *ticks(0.5, 11.5), *again, *ticks(12.5, 15))
    assert happened.counted == 1


def test_a_late_line_whose_sender_is_connected_counts() -> None:
    """By TLS a guess may be in the log alone, and its connection confirms the line whenever it is read."""
    happened = Player(connected=[(ATTACKER, 5062)]).play(
        at(0, Sources()),
        *ticks(0.5, 12.5),
        at(13, failed(by=NOTICE, late=12.0, transport=Transport.TLS)),
        *ticks(13.5, 15),
    )
    assert happened.attempts == ["192.0.2.7 counted, proven by handshake"]


def by_connection(by: str = AMI, late: float = 0.0, transport: Transport = Transport.TLS) -> SecurityEvent:
    """Return a report of a guess by TLS, or by TCP; a notice names no transport."""
    named = Transport.UNKNOWN if by == NOTICE else transport
    return failed(by=by, nonce=b"" if by == NOTICE else b"n", transport=named, late=late)


@pytest.mark.parametrize(("lines", "attempts"), [(1, 1), (2, 2)])
def test_a_late_line_of_a_connection_whose_guess_ami_reported_is_left_out(lines: int, attempts: int) -> None:
    """AMI reports one guess by TLS. Of two late lines of its session, one is of a guess that it misses."""
    guard = Player(connected=[(ATTACKER, 5062)])
    late = [by_connection(NOTICE, late=10.5)] * lines
    happened = guard.play(at(0, by_connection()), *ticks(0.5, 9.5), at(10.5, *late), *ticks(11, 13))
    assert happened.attempts == ["192.0.2.7 counted, proven by handshake"] * attempts


@pytest.mark.parametrize("ami", [9.0, 11.0])
def test_a_late_line_of_a_copied_guess_by_tcp_is_left_out(ami: float) -> None:
    """The kernel copies the guess. AMI's event is read too late to be matched, or not, and then the line."""
    tcp = Transport.TCP
    guess = copied(nonce=b"n", registers="204", transport=tcp)
    happened = Player(connected=[(ATTACKER, 5062)]).play(
        at(0, guess, sent(nonce=b"m", sequence=2, transport=tcp)),
        *ticks(0.5, 8.5),
        at(ami, by_connection(late=ami, transport=tcp)),
        at(ami + 1.5, by_connection(NOTICE, late=ami + 1.5)),
        *ticks(ami + 2, ami + 4),
    )
    assert happened.attempts == ["192.0.2.7 counted, proven by handshake"]


def at_chan_sip(by: str = AMI, late: float = 0.0, account: str = "204") -> SecurityEvent:
    """Return a report of a guess by TLS at chan_sip; a notice names neither its session nor its transport."""
    if by == NOTICE:
        return wrong(call=b"", by=by, transport=Transport.UNKNOWN, account=account, late=late)
    return wrong(nonce=b"n", response=b"r", transport=Transport.TLS, account=account, late=late)


def at_the_manager(by: str = AMI, late: float = 0.0) -> SecurityEvent:
    """Return a report of a failed login at the manager interface."""
    kind, tcp = EventKind.INVALID_PASSWORD, Transport.TCP
    return report(kind, call=b"0x1", by=by, service=Service.AMI, transport=tcp, late=late)


@pytest.mark.parametrize("reported", [at_chan_sip, at_the_manager])
@pytest.mark.parametrize(("first", "second"), [(AMI, NOTICE), (NOTICE, AMI)])
def test_a_late_report_without_a_session_is_of_an_attempt_of_its_time(
    reported: Callable[[str, float], SecurityEvent], first: str, second: str
) -> None:
    """One source reports the attempt at once, and the other one is read 12 s late."""
    happened = Player(connected=[(ATTACKER, 5062)]).play(
        at(0, reported(first, 0.0)), *ticks(0.5, 11.5), at(12, reported(second, 12.0)), *ticks(12.5, 15)
    )
    assert happened.attempts == ["192.0.2.7 counted, proven by handshake"]


def test_late_lines_of_chan_sip_are_of_the_guesses_of_their_time() -> None:
    """Each line comes 12 s late, and the first ones while later guesses wait for their own lines."""
    guesses = (0.0, 5.0, 11.0)
    steps = [at(time, at_chan_sip()) for time in guesses]
    steps += [at(time + 12.0, at_chan_sip(NOTICE, late=12.0)) for time in guesses]
    steps.sort(key=lambda step: step.time)
    happened = Player(connected=[(ATTACKER, 5062)]).play(*steps, *ticks(24, 26))
    assert happened.attempts == ["192.0.2.7 counted, proven by handshake"] * 3


@pytest.mark.parametrize(
    ("read", "lines"),
    [
        (12.0, [("204", 12.0), ("204", 12.0)]),
        (12.0, [("205", 12.0)]),
        (22.0, [("204", 12.0)]),
    ],
    ids=["two lines", "another account", "another time"],
)
def test_a_late_line_of_chan_sip_about_another_guess_counts(
    read: float, lines: list[tuple[str, float]]
) -> None:
    """AMI reports one guess, and the log alone another one."""
    told = [at_chan_sip(NOTICE, age, account) for account, age in lines]
    happened = Player(connected=[(ATTACKER, 5062)]).play(
        at(0, at_chan_sip()), *ticks(0.5, read - 0.5), at(read, *told), *ticks(read + 0.5, read + 3)
    )
    assert happened.attempts == ["192.0.2.7 counted, proven by handshake"] * 2


def test_a_late_line_counts_although_ami_reported_an_older_guess() -> None:
    """Forty seconds later the log alone reports another guess of the session: its counts began again."""
    guard = Player(connected=[(ATTACKER, 5062)])
    guard.play(at(0, by_connection()), at(1, by_connection(NOTICE, late=1.0)), *ticks(1.5, 51))
    assert guard.play(at(52, by_connection(NOTICE, late=11.0)), *ticks(52.5, 55)).counted == 1


def test_a_later_guess_confirms_no_late_line() -> None:
    """A line is 12 s late and waits, and its sender sends credentials again: AMI has reported the guess."""
    happened = Player().play(
        at(0, sent(), failed()),
        *ticks(0.5, 11.5),
        at(12, failed(by=NOTICE, late=12.0)),
        at(12.3, copied(nonce=b"k")),
        *ticks(12.5, 15),
    )
    assert happened.counted == 1


def test_a_session_that_was_discarded_early_counts_no_attempt_twice() -> None:
    """A sender has an eighth of the sessions. The log's line of a discarded one comes after AMI's event."""
    calls = [b"call-%d" % number for number in range(6)]
    happened = Player(sessions=32).play(
        at(0, Sources(wire=False), sent()),
        *(at(1 + number / 10, failed(call=call)) for number, call in enumerate(calls)),
        at(2, *(failed(call=call, by=NOTICE, late=1.0 - number / 10) for number, call in enumerate(calls))),
        *ticks(2.5, 6),
    )
    assert happened.counted == len(calls)


def test_a_late_line_of_a_time_without_ami_counts() -> None:
    """Nothing else has reported its attempt: it is listed once AMI is back."""
    happened = Player().play(
        at(0, Sources(ami=False, wire=False)),
        *ticks(0.5, 9.5),
        at(10, Sources(wire=False)),
        *ticks(10.5, 11.5),
        at(12, failed(by=NOTICE, late=11.0)),
        *ticks(12.5, 16),
    )
    assert happened.attempts == ["192.0.2.7 unconfirmed, claimed"]


def test_a_line_is_of_one_attempt_only() -> None:
    """A line reports the older one of two guesses under one Call-ID, and not both."""
    guard = Player()
    guard.play(at(0, sent(), failed(), failed()), at(1, failed(by=SECURITY)), *ticks(2, 4))
    assert guard.sources_of(ATTACKER) == [{AMI, SECURITY}, {AMI}]


@pytest.mark.parametrize(("later", "attempts"), [(9.9, 1), (10.0, 2)])
def test_reports_are_joined_within_ten_seconds(later: float, attempts: int) -> None:
    """A line that comes later than any line was ever seen to come is of another attempt."""
    happened = Player().play(
        at(0, sent(), failed()),
        at(5, sent()),
        at(later, failed(by=SECURITY)),
        *ticks(later + 1, later + 3),
    )
    assert happened.counted == attempts


def test_the_horizon_runs_from_the_first_report_of_each_attempt() -> None:
    """A later guess matches its own line, even after the time of the first guess is over."""
    guard = Player()
    guard.play(at(0, sent(), failed()), at(6, sent(), failed()))
    assert guard.play(at(12, failed(by=SECURITY)), *ticks(13, 15)).counted == 0
    assert guard.play(at(15.5, sent(), failed(by=SECURITY)), *ticks(16, 18)).counted == 1


def test_one_call_id_at_two_asterisks_is_two_attempts() -> None:
    """One Call-ID at two PBXs counts twice, because each PBX reports its own attempts."""
    branch = evolve(failed(), source=SourceId("branch", AMI))
    for others in ((), ("branch",)):
        assert Player(others=others).play(at(0, failed(), branch)).counted == 2
        by_log = evolve(branch, source=SourceId("branch", SECURITY))
        happened = Player(others=others).play(at(0, sent(), failed(), by_log), *ticks(1, 3))
        assert happened.counted == 2


@pytest.mark.parametrize("order", ["10", "01"])
def test_a_copied_guess_is_reported_by_one_asterisk(order: str) -> None:
    """A sender guesses by TCP at one PBX and by TLS at another, with one Call-ID: each guess counts.

    The kernel copies the guess by TCP first, and the events of the two come in any order.
    """
    by_tls = evolve(failed(transport=Transport.TLS), source=SourceId("branch", AMI))
    events = [failed(transport=Transport.TCP, nonce=b"n"), by_tls]
    guard = Player(others=("branch",))
    for number in range(2):
        asked = copied(nonce=b"n", sequence=number, transport=Transport.TCP)
        refused = sent(nonce=b"n", sequence=number, transport=Transport.TCP)
        steps = at(number, asked, refused, *(events[int(one)] for one in order))
        assert guard.play(steps).counted == 2


def test_copied_requests_to_one_asterisk_make_no_report_of_another_late() -> None:
    """The kernel copies requests to one Asterisk, and AMI reports another 15 s late: each guess counts."""
    guard = Player(others=("branch",))
    for number in range(3):
        late = evolve(failed(call=b"%d" % number, late=15.0), source=SourceId("branch", AMI))
        happened = guard.play(at(20 + number, copied(call=b"other", sequence=number), late))
        assert happened.counted == 1


def test_ipv4_and_ipv6_senders_of_one_call_id_are_two() -> None:
    """One Call-ID of two senders counts twice, because a Call-ID belongs to its sender."""
    assert Player().play(at(0, failed(), failed("2001:db8::7"))).counted == 2


def test_a_guess_at_chan_sip_is_joined_by_its_address() -> None:
    """A line of chan_sip matches any guess of its address within ten seconds, as it names no session."""
    challenges = [sent(nonce=b"%d" % n, service=Service.SIP) for n in range(3)]
    guesses = [wrong(call=b"%d" % n, nonce=b"%d" % n, response=b"r") for n in range(3)]
    happened = Player().play(at(0, *challenges, *guesses), at(1, *[wrong_by_notice()] * 3), *ticks(2, 4))
    assert happened.counted == 3


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("later", [0.0, 0.4, 0.9])
def test_an_event_and_a_notice_of_chan_sip_that_agree_count_once(first: int, later: float) -> None:
    """Without the wire, both wait for each other: whichever is due first, they are one attempt."""
    both = [wrong(nonce=b"n", response=b"r"), wrong_by_notice()]
    guard = Player(sources=("AMI", "log"))
    happened = guard.play(at(0.3, both[first]), at(0.3 + later, both[1 - first]), *ticks(1.2, 4.2, 0.5))
    assert happened.attempts == ["192.0.2.7 counted, claimed"]
    assert guard.sources_of(ATTACKER) == [{AMI, NOTICE}]


def test_two_senders_that_try_one_account_of_chan_sip_count_once_each() -> None:
    """Two senders may fail with one account in the same second: each notice agrees with its own event."""
    reports = [one for address in (ATTACKER, PHONE) for one in (wrong_by_notice(address), wrong(address))]
    happened = Player(sources=("AMI", "log")).play(at(0, *reports), *ticks(1, 3))
    assert happened.attempts == ["192.0.2.7 counted, claimed", "198.51.100.4 counted, claimed"]


def test_a_notice_of_chan_sip_agrees_with_one_event_only() -> None:
    """The notice of one guess confirms no further event that names its sender."""
    events = [wrong(call=b"%d" % n) for n in range(3)]
    happened = Player(sources=("AMI", "log")).play(at(0, wrong_by_notice(), *events), *ticks(1, 3))
    assert (happened.counted, len(happened.of("unconfirmed"))) == (1, 2)


def test_an_event_of_chan_sip_without_a_notice_is_unconfirmed_without_the_wire() -> None:
    """A notice reports the attempt of its own address, and no other event is confirmed by it.

    chan_sip writes no notice for an INVITE.
    """
    reports = [wrong_by_notice(), wrong(), wrong(PHONE)]
    happened = Player(sources=("AMI", "log")).play(at(0, *reports), *ticks(1, 3))
    assert happened.attempts == ["192.0.2.7 counted, claimed", "198.51.100.4 unconfirmed, claimed"]


def test_a_call_and_a_guess_at_chan_sip_are_two_attempts() -> None:
    """A line of a call to an unknown extension does not report the guess of the same address."""
    call = misdialled_by_notice()
    answers = [sent(nonce=b"n", service=Service.SIP), sent(call=b"call-2", service=Service.SIP, status=404)]
    happened = Player().play(at(0, *answers, wrong(nonce=b"n", response=b"r"), call), *ticks(1, 3))
    assert happened.counted == 2


def refused(by: str = AMI, call: bytes = b"call-1") -> SecurityEvent:
    """Return chan_sip's report of a request that an ACL refuses; an ESC can forge its notice."""
    acl, forgeable = "device_must_match_acl", by == NOTICE
    return report(EventKind.FAILED_ACL, call=call, service=Service.SIP, by=by, acl=acl, forgeable=forgeable)


@pytest.mark.parametrize("late", [False, True])
def test_a_refusal_by_an_acl_is_one_attempt_of_all_sources(*, late: bool) -> None:
    """chan_sip answers like to a wrong password, so the wire sees a guess, which is the same attempt."""
    reports = [refused(NOTICE, b""), refused(), refused(NOTICE, b""), refused()]
    answers = [sent(nonce=b"n", service=Service.SIP), sent(service=Service.SIP, status=403)]
    steps = [at(0, *answers, *reports)] if late else [at(0, answers[0], *reports, answers[1])]
    happened = Player().play(*steps, *ticks(1, 8))
    assert happened.attempts == ["192.0.2.7 counted, claimed"]


@pytest.mark.parametrize("sources", [("log",), ("AMI", "log")], ids=",".join)
def test_a_refusal_by_an_acl_is_listed_once_without_the_wire(sources: tuple[str, ...]) -> None:
    """Nothing confirms such an event and its notice, so they are one unconfirmed attempt."""
    event = AMI if "AMI" in sources else SECURITY
    reports = [refused(NOTICE, b""), refused(event), refused(NOTICE, b""), refused(event)]
    happened = Player(sources=sources).play(at(0, *reports), *ticks(1, 3))
    assert happened.attempts == ["192.0.2.7 unconfirmed, claimed"]


def test_a_hidden_attempt_that_ami_reports_counts_once() -> None:
    """An ESC in a display name suppresses nothing: AMI reports the same call."""
    happened = Player().play(at(0, sent(evasive=True), probed(), challenged()), *ticks(1, 8))
    assert happened.counted == 1


def test_a_source_that_reports_more_than_another_adds_the_rest() -> None:
    """An attempt that a sender suppressed in one source counts by the report of another."""
    calls = [b"%d" % n for n in range(4)]
    happened = Player().play(
        at(0, *(sent(call=call) for call in calls)),
        at(0.1, *(failed(call=call) for call in calls[:2])),
        at(0.2, *(failed(call=call, by=SECURITY) for call in calls[1:])),
        *ticks(1, 3),
    )
    assert happened.counted == 4


def test_an_unconfirmed_attempt_is_listed_once() -> None:
    """Both lines of one request that no source confirms are one entry."""
    lines = [failed(by=by, port=0, transport=Transport.UNKNOWN) for by in (NOTICE, SECURITY)]
    happened = Player(sources=("AMI", "log")).play(at(0, *lines), *ticks(1, 3))
    assert happened.attempts == ["192.0.2.7 unconfirmed, claimed"]


def test_a_late_line_of_an_unconfirmed_source_is_joined_with_what_was_confirmed() -> None:
    """A line adds nothing if AMI reports the same attempt while the line waits."""
    guard = Player()
    happened = guard.play(at(0, failed(by=NOTICE)), at(0.5, failed()), *ticks(1, 4))
    assert happened.attempts == ["192.0.2.7 counted, claimed"]
    assert guard.sources_of(ATTACKER) == [{AMI, NOTICE}]


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_lines_that_wait_the_one_that_cannot_be_forged_counts(first: int) -> None:
    """When AMI and the wire are away at the time of judgement, one line is a claim for both."""
    lines = [failed(by=NOTICE, forgeable=True), failed(by=SECURITY)]
    away = at(0.5, Sources(ami=False, wire=False))
    happened = Player().play(at(0, lines[first], lines[1 - first]), away, *ticks(1, 3))
    assert happened.attempts == ["192.0.2.7 counted, claimed"]
