"""Attribution: how the detector judges events and challenges together.

tests/detect/transcripts/test_recordings.py tests that every interleaving of recordings counts the same.
"""

from ipaddress import ip_address, ip_network

import pytest
from attrs import evolve
from tests.detect.driven import Driven
from tests.detect.events import NOTICES, SECURITY, SENDER, Connected, event

from ringfence.alarm_codes import AlarmCode
from ringfence.detect.confirmation import GUESS as LEAST
from ringfence.detect.confirmation import PATIENCE, UNBACKED, WITHIN, KnownSources
from ringfence.detect.friend_attempts import UNPROVEN, UNSHIELDED_FOR
from ringfence.detect.judgement import Disposition, Judgement
from ringfence.detect.rules import RULES, Rule
from ringfence.detect.wire import ANSWERED, MANY, SETTLED, SURE_AFTER, WAIT
from ringfence.model import (
    AttemptKind,
    Challenge,
    Contact,
    Endpoint,
    EventKind,
    Friend,
    FriendReason,
    ObservedRequest,
    Proof,
    Scope,
    SecurityEvent,
    Service,
    SourceId,
    Transport,
)

GUESS = RULES[0]
HERE = ip_address("198.18.0.1")
STRANGER = "203.0.113.9"
AT_ONCE = (evolve(GUESS, attempts=1),)


def challenge(address: str = SENDER, *, call_id: bytes = b"call-1", evasive: bool = False) -> Challenge:
    """Return a challenge that PJSIP sent to ``address`` at its own request."""
    there = ip_address(address)
    return Challenge(there, 5062, HERE, 5060, call_id, b"1/x", there, evasive, "alice")


def line(address: str = SENDER, session: bytes = b"call-1") -> SecurityEvent:
    """Return a forgeable line of PJSIP that names ``address``."""
    told = event(EventKind.CHALLENGE_RESPONSE_FAILED, source=NOTICES, address=address, session=session)
    return evolve(told, forgeable=True)


def always(_: str) -> float:
    """Return a start time so early that AMI has been connected for long."""
    return -SURE_AFTER


def joining(rules: tuple[Rule, ...] = RULES, *connected: tuple[str, int]) -> Driven:
    """Return a detector of a PBX that several sources report, with these TCP connections."""
    return Driven(rules, sources=KnownSources(frozenset({"pbx"})), connections=Connected(*connected))


def test_a_line_counts_at_once_where_its_challenge_was_seen() -> None:
    """A line counts at once with its challenge, whichever of the two comes first."""
    for first in ("wire", "line"):
        detector = joining(AT_ONCE)
        judged = detector.observe_challenges([challenge()], 0.0, 0.0, "pbx") if first == "wire" else []
        judged += detector.observe(line(), 0.0)
        judged += detector.observe_challenges([challenge()], 0.1, 0.1, "pbx") if first == "line" else []

        assert [(j.subject, j.disposition) for j in judged] == [(ip_network(SENDER), Disposition.COUNTED)]
        assert detector.tick(PATIENCE, wire=True) == []


def test_a_line_without_a_challenge_is_forged_or_unconfirmed() -> None:
    """A line without a challenge is forged if the wire sees all; otherwise it is listed and bans nothing."""
    for blind, wire, standing in (
        (None, True, Disposition.FORGED),
        (0.0, True, Disposition.UNCONFIRMED),
        (None, False, Disposition.UNCONFIRMED),
    ):
        detector = joining(AT_ONCE)
        detector.observe_challenges([challenge(call_id=b"another")], 0.0, 0.0, "pbx")
        if blind is not None:
            detector.observe_loss(blind)
        assert detector.observe(line(), 0.0) == []
        (judgement,) = detector.tick(PATIENCE, wire=wire)
        assert (judgement.disposition, judgement.decision) == (standing, None)
        assert bool(detector.watched(PATIENCE)) is (standing is Disposition.UNCONFIRMED)


def test_two_lines_of_one_guess_at_the_start_count_once() -> None:
    """Both lines wait until AMI and the wire are known to be away; then the security line counts for both."""
    told = event(EventKind.CHALLENGE_RESPONSE_FAILED, source=SECURITY)
    for lines in (line(), told), (told, line()):
        detector = joining()
        for one in lines:
            assert detector.observe(one, 0.0) == []
        judged = detector.tick(PATIENCE)
        assert [j.disposition for j in judged] == [Disposition.COUNTED]


def test_a_line_without_a_challenge_counts_after_an_earlier_challenge() -> None:
    """A line without a challenge counts if its address asked for one lately and has no phone here.

    An attacker whose answers cannot be delivered guesses all the same.
    """
    for succeeds, standing in ((False, Disposition.COUNTED), (True, Disposition.FORGED)):
        detector = joining(AT_ONCE)
        detector.observe_challenges([challenge(call_id=b"another")], 1.0, 1.0, "pbx")
        detector.observe(event(EventKind.CHALLENGE_SENT, session=b"another"), 1.0)
        by = SENDER if succeeds else STRANGER
        detector.observe(event(EventKind.SUCCESSFUL_AUTH, address=by, session=b"another"), 1.0)
        assert detector.tick(1.5, wire=True, listening=always) == []
        judged = detector.observe(line(), 1.0 + ANSWERED)
        judged += detector.tick(1.0 + ANSWERED + PATIENCE, wire=True, listening=always)
        assert [j.disposition for j in judged] == [standing]


def test_a_sender_of_endless_requests_is_counted() -> None:
    """A sender that keeps requesting challenges without a success is counted, although nothing reports it."""
    detector = joining()
    detector.observe_challenges([challenge(STRANGER)], 0.0, 0.0, "pbx")
    detector.observe(event(EventKind.SUCCESSFUL_AUTH, address=STRANGER), 0.5)
    for number in range(MANY + GUESS.attempts + 1):
        detector.observe_challenges([challenge(call_id=b"%d" % number)], 1.0, 1.0, "pbx")
        detector.observe(event(EventKind.CHALLENGE_SENT, session=b"%d" % number), 1.0)
    judged = detector.tick(1.0 + SETTLED, listening=always)

    assert [j.decision.subject for j in judged if j.decision] == [ip_network(SENDER)]
    assert detector.counts.hidden >= GUESS.attempts


def test_a_phone_of_chan_sips_may_have_a_hundred_lamps() -> None:
    """A phone that subscribes a hundred times is no guesser: chan_sip reports no success of a SUBSCRIBE."""
    detector = joining()
    detector.observe(event(EventKind.CHALLENGE_SENT, service=Service.SIP), 0.5)
    for number in range(2 * MANY):
        detector.observe_challenges(
            [evolve(challenge(call_id=b"%d" % number), service=Service.SIP)], 1.0, 1.0, "pbx"
        )

    assert detector.tick(1.0 + SETTLED, listening=lambda _: 0.0) == []


def test_a_late_line_of_a_banned_address_is_no_forgery() -> None:
    """A late line of a banned address is late and no forgery, since a banned address gets no challenge."""
    detector = joining()
    detector.observe_challenges([challenge(call_id=b"another")], 0.0, 0.0, "pbx")
    detector.bans.assume(ip_network(SENDER), Scope.FULL, 100.0)
    assert detector.observe(line(), 1.0) == []

    assert [j.disposition for j in detector.tick(1.0 + PATIENCE, wire=True)] == [Disposition.LATE]


def test_what_is_evasive_counts_by_itself() -> None:
    """Each evasive request counts at once, since no other source can report it.

    The exception is a request that may answer an earlier challenge of its session.
    """
    detector = joining()
    judged = detector.observe_challenges(
        [challenge(call_id=b"%d\xff" % n, evasive=True) for n in range(5)], 0.0, 7.0, "pbx"
    )

    assert [j.disposition for j in judged] == [Disposition.COUNTED] * 5
    assert (judged[4].decision is not None, judged[0].attempt.time) == (True, 7.0)
    assert (judged[0].attempt.account, judged[0].attempt.event) == ("alice", EventKind.HIDDEN)
    assert detector.counts.hidden == 5


def test_a_call_decides_once_on_a_subject() -> None:
    """Ten attempts that are judged in one call lead to one ban; those after the decision are late."""
    detector = joining()
    judged = detector.observe_challenges(
        [challenge(call_id=b"%d\xff" % n, evasive=True) for n in range(10)], 0.0, 7.0, "pbx"
    )

    assert [j.disposition for j in judged] == [Disposition.COUNTED] * 5 + [Disposition.LATE] * 5
    assert [j.decision is not None for j in judged] == [False] * 4 + [True] + [False] * 5


def test_an_evasive_guess_that_ami_reports_counts_once() -> None:
    """An ESC in a display name suppresses nothing: AMI reports the same call, and it counts once."""
    detector = joining()
    detector.observe_challenges([challenge(evasive=True)], 0.0, 0.0, "pbx")
    assert detector.observe(event(EventKind.INVALID_ACCOUNT_ID), 0.0) == []
    assert detector.counts.attempts == 1


def test_a_challenge_of_an_unknown_sender_is_no_evidence() -> None:
    """A challenge of unknown sender, from chan_sip or another server, is not sufficient evidence."""
    detector = joining(AT_ONCE)
    assert detector.observe_challenges([evolve(challenge(evasive=True), sender=None)], 0.0, 0.0, "pbx") == []
    assert detector.counts.attempts == 0
    detector.observe_challenges([evolve(challenge(), sender=None)], 1.0, 0.0, "pbx")
    assert detector.tick(1.0 + WAIT, wire=True, listening=lambda _: 0.0) == []


def test_an_unreported_challenge_is_an_attempt() -> None:
    """A challenge that AMI should have reported and did not is an attempt of the address that asked."""
    detector = joining(AT_ONCE)
    detector.observe_challenges([challenge(call_id=b"before")], 0.0, 0.0, "pbx")
    detector.observe(event(EventKind.CHALLENGE_SENT, session=b"before"), 0.0)
    detector.observe_challenges([challenge()], 1.0, 1.0, "pbx")

    assert detector.tick(1.0 + WAIT - 0.1, listening=lambda _: 0.0) == []
    (judgement,) = detector.tick(1.0 + WAIT, 6.0, listening=lambda _: 0.0)
    assert (judgement.subject, judgement.disposition) == (ip_network(SENDER), Disposition.COUNTED)


def chan_sip_line(address: str = SENDER, account: str = "alice") -> SecurityEvent:
    """Return a line of chan_sip that names ``address``."""
    return event(
        EventKind.INVALID_PASSWORD,
        service=Service.SIP,
        source=NOTICES,
        session=b"",
        address=address,
        account=account,
        transport=Transport.UNKNOWN,
    )


def test_chan_sips_event_and_line_must_agree_without_the_wire() -> None:
    """An event and a line that name one address are one claim; two that differ count against no address."""
    for named, standing in ((SENDER, Disposition.COUNTED), (STRANGER, Disposition.FORGED)):
        detector = joining()
        reported = event(EventKind.INVALID_PASSWORD, service=Service.SIP, address=named)
        assert detector.observe(reported, 0.0) == []
        assert detector.observe(chan_sip_line(), 0.0) == []

        first, *others = detector.tick(PATIENCE, listening=always)
        assert (first.disposition, str(first.attempt.address)) == (standing, SENDER)
        assert first.attempt.proof is Proof.CLAIMED
        assert [j.disposition for j in others] == [Disposition.UNCONFIRMED] * (named is STRANGER)


def test_a_line_of_chan_sips_counts_once_for_each_answer() -> None:
    """A forger of lines gains nothing beyond the answers that really went to that address."""
    detector = joining()
    detector.observe_challenges(
        [evolve(challenge(), service=Service.SIP, nonce=b"%d" % n) for n in range(2)], 0.0, 0.0, "pbx"
    )
    judged = [one for _ in range(4) for one in detector.observe(chan_sip_line(), 0.0)]

    assert [j.disposition for j in judged] == [Disposition.COUNTED] * 2
    assert {j.disposition for j in detector.tick(PATIENCE, wire=True)} == {Disposition.UNCONFIRMED}


def test_a_line_first_and_a_nonce_later_is_one_proven_attempt() -> None:
    """Whichever source reports last, an attempt has the best proof that any of them gives."""
    detector = joining()
    detector.observe_challenges(
        [evolve(challenge(), service=Service.SIP, nonce=b"%d" % n) for n in range(5)], 0.0, 0.0, "pbx"
    )
    judged: list[Judgement] = []
    for number in range(5):
        judged += detector.observe(chan_sip_line(), float(number))
        nonce = b"%d" % number
        reported = event(
            EventKind.INVALID_PASSWORD, service=Service.SIP, challenge=nonce, response=b"r", session=nonce
        )
        judged += detector.observe(reported, float(number))

    assert detector.counts.attempts == 5
    assert [j.decision.scope for j in judged if j.decision] == [Scope.FULL]


@pytest.mark.parametrize("source", [NOTICES, SECURITY])
def test_text_of_tcp_counts_only_with_its_connection(source: SourceId) -> None:
    """A line that claims TLS counts only with its connection, because its sender chose the address in it."""
    for connected, standing in (((SENDER, 5062),), Disposition.COUNTED), ((), Disposition.UNCONFIRMED):
        detector = joining(AT_ONCE, *connected)
        told = event(EventKind.CHALLENGE_RESPONSE_FAILED, source=source, transport=Transport.TLS)
        judged = [*detector.observe(told, 0.0), *detector.tick(PATIENCE)]
        assert [j.disposition for j in judged] == [standing]


@pytest.mark.parametrize("service", [Service.AMI, Service.IAX2, Service.DIALPLAN])
def test_lines_without_confirmation_ban_nothing(service: Service) -> None:
    """Lines of IAX2 and the dialplan ban nothing; a failed manager login counts by its AMI event."""
    detector = joining((evolve(GUESS, attempts=1, counts=frozenset(AttemptKind)),))
    kind = EventKind.FAILED_ACL if service is Service.DIALPLAN else EventKind.INVALID_PASSWORD
    told = event(kind, source=NOTICES, service=service, port=0, transport=Transport.UNKNOWN)
    assert detector.observe(told, 0.0) == []

    assert [(j.disposition, j.decision) for j in detector.tick(PATIENCE, wire=True)] == [
        (Disposition.UNCONFIRMED, None)
    ]


def test_without_ami_and_the_wire_a_line_is_a_claim() -> None:
    """Without AMI and the wire a line of UDP counts, and one of TLS needs its connection."""
    for transport, standing in (
        (Transport.UDP, Disposition.COUNTED),
        (Transport.TLS, Disposition.UNCONFIRMED),
    ):
        detector = Driven(AT_ONCE, sources=KnownSources(corroborated=frozenset()), connections=Connected())
        told = event(EventKind.CHALLENGE_RESPONSE_FAILED, source=SECURITY, transport=transport)
        [judgement] = detector.observe(told, 0.0)
        assert (judgement.disposition, judgement.attempt.proof) == (standing, Proof.CLAIMED)


def test_earlier_lines_count_with_the_connection_that_is_listed_later() -> None:
    """The first lines of a connection count as soon as the kernel lists it, which may be later."""
    connected = Connected()
    detector = Driven(RULES, sources=KnownSources(frozenset({"pbx"})), connections=connected)
    failed = EventKind.CHALLENGE_RESPONSE_FAILED
    told = event(failed, source=NOTICES, transport=Transport.UNKNOWN)
    lines = [evolve(told, session=b"%d" % number, forgeable=True) for number in range(GUESS.attempts)]
    for number, one in enumerate(lines[:-1]):
        assert detector.observe(one, 0.002 * number) == []
    connected.remotes.add((ip_address(SENDER), lines[0].remote.port))
    judged = detector.observe(lines[-1], 0.01)

    assert len(judged) == GUESS.attempts
    assert [j.decision.subject for j in judged if j.decision] == [ip_network(SENDER)]
    assert detector.tick(PATIENCE + 0.01) == []


def test_a_waiting_line_counts_with_a_later_connection_from_the_same_port() -> None:
    """A later connection confirms a line that waits, also if an earlier line of its port was judged."""
    connected = Connected()
    detector = Driven(RULES, sources=KnownSources(frozenset({"pbx"})), connections=connected)
    known = {(ip_address(SENDER), 5062)}
    assert detector.observe(port_line(session=b"first"), 0.0) == []
    connected.remotes |= known
    assert len(detector.observe(port_line(session=b"second"), 0.1)) == 2
    connected.remotes -= known
    assert detector.observe(port_line(session=b"third"), 0.5) == []
    assert detector.tick(PATIENCE) == []
    connected.remotes |= known
    assert len(detector.observe(port_line(session=b"fourth"), 1.2)) == 2


def test_a_short_connection_confirms_a_login_to_the_manager_alone() -> None:
    """A login to the manager is shorter than any guess by SIP, so fewer bytes are enough."""

    class Short(Connected):
        def backs(self, remote: Endpoint, length: int, now: float) -> bool:
            return length <= 20 and super().backs(remote, length, now)

    for service, standing in (
        (Service.AMI, Disposition.COUNTED),
        (Service.PJSIP, Disposition.UNCONFIRMED),
    ):
        sources = KnownSources(frozenset({"pbx"}))
        detector = Driven(RULES, sources=sources, connections=Short((SENDER, 5062)))
        failed = EventKind.CHALLENGE_RESPONSE_FAILED
        reported = event(failed, source=NOTICES, service=service, transport=Transport.TCP)
        judged = [*detector.observe(reported, 0.0), *detector.tick(PATIENCE)]
        assert [j.disposition for j in judged] == [standing]


def test_a_login_that_is_confirmed_confirms_no_longer_request() -> None:
    """A connection that carried a login's bytes alone leaves a waiting guess of its port unconfirmed."""

    class Short(Connected):
        def backs(self, remote: Endpoint, length: int, now: float) -> bool:
            return length <= 20 and super().backs(remote, length, now)

    connected = Short()
    detector = Driven(RULES, sources=KnownSources(frozenset({"pbx"})), connections=connected)
    assert detector.observe(port_line(session=b"sip"), 0.0) == []
    connected.remotes.add((ip_address(SENDER), 5062))
    login = evolve(port_line(session=b"ami"), service=Service.AMI)
    assert len(detector.observe(login, 0.1)) == 1
    assert [one.disposition for one in detector.tick(PATIENCE + 0.1)] == [Disposition.UNCONFIRMED]


def test_a_tampered_event_of_tcp_needs_its_connection() -> None:
    """A tampered event, outside Asterisk's grammar, proves nothing unless the kernel knows its connection."""
    for connected, proof in (((SENDER, 5062),), Proof.HANDSHAKE), ((), Proof.CLAIMED):
        detector = joining(AT_ONCE, *connected)
        told = event(EventKind.CHALLENGE_RESPONSE_FAILED, transport=Transport.TCP, tampered=True)
        [judgement] = detector.observe(told, 0.0)
        assert judgement.attempt.proof is proof
        assert (judgement.disposition is Disposition.COUNTED) is bool(connected)


@pytest.mark.parametrize("kind", [EventKind.CHALLENGE_RESPONSE_FAILED, EventKind.INVALID_PASSWORD])
def test_a_diverted_challenge_counts_against_its_requester(kind: EventKind) -> None:
    """A challenge that went to a stranger counts against its requester, and its nonce proves nothing.

    A Via can name a stranger in the event and have the challenge sent there.
    """
    detector = joining(AT_ONCE)
    sent = evolve(challenge(STRANGER), nonce=b"n", sender=ip_address(SENDER), service=Service.SIP)
    detector.observe_challenges([sent], 0.0, 0.0, "pbx")
    [judgement] = detector.observe(event(kind, service=Service.SIP, address=STRANGER, challenge=b"n"), 0.0)

    assert (judgement.subject, judgement.disposition) == (ip_network(SENDER), Disposition.COUNTED)
    assert judgement.attempt.proof is Proof.CLAIMED


def test_chan_sips_challenges_back_no_line_of_pjsips() -> None:
    """chan_sip's challenges confirm no line of PJSIP, whichever address asked for them."""
    detector = joining(AT_ONCE)
    detector.observe_challenges([evolve(challenge(), service=Service.SIP)], 0.0, 0.0, "pbx")
    assert detector.observe(line(), 0.0) == []
    assert [j.disposition for j in detector.tick(PATIENCE, wire=True)] == [Disposition.FORGED]


def test_chan_sips_event_without_a_line_is_listed() -> None:
    """An event of chan_sip that no line confirms is listed as unconfirmed."""
    detector = joining(AT_ONCE)
    assert detector.observe(event(EventKind.INVALID_PASSWORD, service=Service.SIP), 0.0) == []
    assert [j.disposition for j in detector.tick(PATIENCE)] == [Disposition.UNCONFIRMED]


def test_a_line_with_a_connection_counts_at_once() -> None:
    """A line counts at once with its TCP or TLS connection, which shows a handshake from that very port."""
    detector = joining(AT_ONCE, (SENDER, 5062))
    [judgement] = detector.observe(port_line(), 0.0)
    assert judgement.decision is not None
    assert (judgement.attempt.proof, judgement.attempt.transport) == (Proof.HANDSHAKE, Transport.TCP)


def port_line(address: str = SENDER, port: int = 5062, session: bytes = b"call-1") -> SecurityEvent:
    """Return a line of PJSIP that names an address and port and, as Asterisk writes it, no transport."""
    named = line(address, session)
    return evolve(named, remote=evolve(named.remote, port=port, transport=Transport.UNKNOWN))


def test_the_kernel_is_not_queried_for_reported_lines() -> None:
    """The kernel is not asked about lines that AMI reports too: a query takes the time of several guesses."""
    asked: list[Endpoint] = []

    class Asked(Connected):
        def backs(self, remote: Endpoint, length: int, now: float) -> bool:
            asked.append(remote)
            return True

    detector = Driven(RULES, sources=KnownSources(frozenset({"pbx"})), connections=Asked())
    assert [*detector.queries(port_line(), 0.0)] == [(port_line().remote, LEAST)]
    detector.observe(event(EventKind.CHALLENGE_RESPONSE_FAILED), 0.0)
    assert [*detector.queries(port_line(), 0.0)] == []
    detector.observe(port_line(), 0.0)
    assert (detector.tick(PATIENCE, wire=True), asked) == ([], [])
    assert [*detector.queries(port_line(), 0.0)] == [(port_line().remote, LEAST)]


def test_only_reports_that_need_a_connection_are_queried() -> None:
    """Events by UDP, challenges and successes of AMI need no connection; each reading of a line does."""
    detector = joining()
    failed = event(EventKind.CHALLENGE_RESPONSE_FAILED, transport=Transport.TCP)
    for needless in (
        evolve(failed, remote=evolve(failed.remote, transport=Transport.UDP)),
        evolve(failed, remote=evolve(failed.remote, port=0)),
        evolve(failed, kind=EventKind.CHALLENGE_SENT),
        evolve(failed, kind=EventKind.SUCCESSFUL_AUTH),
    ):
        assert [*detector.queries(needless, 0.0)] == []
    login = evolve(failed, kind=EventKind.SUCCESSFUL_AUTH, source=NOTICES)
    readings = (port_line(), port_line(STRANGER))
    ambiguous = evolve(line(), readings=readings)

    assert [*detector.queries(failed, 0.0)] == [*detector.queries(login, 0.0)] == [(failed.remote, LEAST)]
    assert [*detector.queries(ambiguous, 0.0)] == [(one.remote, LEAST) for one in readings]


def test_many_lines_without_connections_end_the_confirmation() -> None:
    """Connections confirm no line of an address that many lines name with ports that are not connected."""
    detector = joining(AT_ONCE, (STRANGER, 5062))
    for number in range(2 * UNBACKED):
        assert detector.observe(port_line(STRANGER, 20_000 + number), 0.0) == []
    detector.tick(PATIENCE)
    assert detector.observe(port_line(STRANGER), WITHIN - 0.1) == []

    judged = detector.observe(port_line(STRANGER), WITHIN + PATIENCE)
    assert any(one.decision is not None for one in judged)


def test_a_burst_over_many_ports_bans_nothing() -> None:
    """Each line that nothing confirms counts against its address as soon as it is read."""
    detector = joining((GUESS,), (STRANGER, 20_000))
    judged = [
        one
        for port in range(19_900, 20_100)
        for _ in range(2 * GUESS.attempts)
        for one in detector.observe(port_line(STRANGER, port), 0.0)
    ]
    assert judged == []


def test_chan_sips_event_of_a_stream_counts_with_its_connection() -> None:
    """An event of chan_sip counts with its connection: no log line names the sender of an INVITE.

    The wire cannot read TLS.
    """
    for port, counts in ((5062, True), (5063, False)):
        detector = joining(AT_ONCE, (SENDER, port))
        reported = event(
            EventKind.INVALID_PASSWORD,
            service=Service.SIP,
            transport=Transport.TLS,
            challenge=b"n",
            response=b"r",
        )
        judged = detector.observe(reported, 0.0)
        assert [(j.decision is not None, j.attempt.proof) for j in judged] == [
            (True, Proof.HANDSHAKE)
        ] * counts


def test_a_nonce_that_chan_sip_repeats_for_a_stranger_proves_no_address() -> None:
    """A nonce that chan_sip sent by TLS before proves no address when it comes back by UDP.

    A sender gets it by TLS, has it sent to a stranger by UDP, and answers it as the stranger.
    """
    for asked_by in (SENDER, STRANGER):  # in the second case the sender forges the source too
        detector = joining(AT_ONCE)
        detector.observe_challenges([], 0.0, 0.0, "pbx")
        by_tls = event(EventKind.CHALLENGE_SENT, service=Service.SIP, transport=Transport.TLS, challenge=b"n")
        detector.observe(by_tls, 0.0)
        repeated = evolve(challenge(STRANGER), nonce=b"n", sender=ip_address(asked_by), service=Service.SIP)
        detector.observe_challenges([repeated], 0.1, 0.1, "pbx")
        guess = event(
            EventKind.INVALID_PASSWORD, service=Service.SIP, address=STRANGER, challenge=b"n", response=b"r"
        )
        [judgement] = detector.observe(guess, 0.2)

        assert (str(judgement.attempt.address), judgement.attempt.proof) == (asked_by, Proof.CLAIMED)


def test_a_nonce_near_a_loss_of_the_wire_proves_no_address() -> None:
    """A nonce near a loss of the wire proves no address.

    The lost packet may have carried the same nonce to a sender that forges its source.
    """
    detector = joining()
    detector.observe_challenges([challenge()], 0.0, 0.0, "pbx")
    detector.observe_loss(0.1)
    [judgement] = detector.observe(event(EventKind.CHALLENGE_RESPONSE_FAILED, challenge=b"1/x"), 0.2)

    assert judgement.attempt.proof is Proof.CLAIMED


def test_a_hang_up_does_not_stop_the_confirmation() -> None:
    """After a hang-up, lines without a connection do not stop the sender's connections from confirming."""
    detector = joining(AT_ONCE, (SENDER, 5062))
    for _ in range(UNBACKED):
        detector.observe(port_line(port=1), 0.0)
    detector.tick(PATIENCE)
    [judgement] = detector.observe(port_line(), PATIENCE)
    assert judgement.decision is not None


def test_an_observed_nonce_proves_the_sessions_of_its_request() -> None:
    """A suspect that sends back a nonce which only it received is proven, for this and later attempts."""
    detector = joining()
    judged = []
    for number in range(5):
        call_id = b"%d\xff" % number
        nonce = b"%d/x" % number
        sent = evolve(challenge(call_id=call_id, evasive=True), nonce=nonce)
        judged += detector.observe_challenges([sent], 0.0, 0.0, "pbx")
        request = ObservedRequest(ip_address(SENDER), 5062, (b"forged", nonce), (call_id,))
        judged += detector.observe_requests([request], 0.0, "pbx")

    assert [(j.disposition, j.decision.scope) for j in judged if j.decision] == [
        (Disposition.COUNTED, Scope.FULL)
    ]


@pytest.mark.parametrize("relayed", [False, True])
def test_an_observed_nonce_with_other_receivers_proves_no_address(*, relayed: bool) -> None:
    """A nonce that was also sent elsewhere, or that its receiver forwards, proves no address."""
    detector = joining()
    for number in range(5):
        call_id = b"%d\xff" % number
        sent = evolve(challenge(call_id=call_id, evasive=True), nonce=b"n%d" % number, relayed=relayed)
        also = evolve(sent, address=ip_address(STRANGER), evasive=False)
        detector.observe_challenges([sent] if relayed else [sent, also], 0.0, 0.0, "pbx")
        request = ObservedRequest(ip_address(SENDER), 5062, (sent.nonce,), (call_id,))
        assert detector.observe_requests([request], 0.0, "pbx") == []


def test_only_what_the_wire_alone_saw_makes_a_suspect() -> None:
    """Only an attempt that the wire alone saw makes a suspect: AMI's events carry the nonce themselves."""
    detector = joining()
    (hidden,) = detector.observe_challenges([challenge(evasive=True)], 0.0, 0.0, "pbx")
    [reported] = detector.observe(event(EventKind.INVALID_ACCOUNT_ID, session=b"other"), 0.0)
    assert hidden.suspect
    assert not reported.suspect


def test_a_hidden_guess_by_tcp_is_proven() -> None:
    """A hidden guess by TCP is proven, because the answer left by the sender's own connection."""
    detector = joining(AT_ONCE)
    seen = evolve(challenge(evasive=True), transport=Transport.TCP, sender=None)
    (judgement,) = detector.observe_challenges([seen], 0.0, 0.0, "pbx")
    assert judgement.attempt.proof is Proof.HANDSHAKE
    assert judgement.decision is not None
    assert judgement.decision.scope is Scope.FULL


def test_what_asterisk_sends_a_phone_by_tcp_is_no_guess_of_it() -> None:
    """A segment to a friend that looks like an answer is no guess, as another sender may have written it."""
    detector = joining(AT_ONCE)
    detector.observe(evolve(event(EventKind.SUCCESSFUL_AUTH, account="204"), password=True), 0.0)
    seen = evolve(challenge(call_id=b"forged\xff", evasive=True), transport=Transport.TCP)
    assert [j.disposition for j in detector.observe_challenges([seen], 1.0, 1.0, "pbx")] == [
        Disposition.UNCONFIRMED
    ]


def test_a_nonce_that_went_by_tcp_alone_proves_no_datagram() -> None:
    """A forged answer within a TCP stream must not make a forged datagram proven."""
    detector = joining()
    detector.observe_challenges([evolve(challenge(), nonce=b"n", transport=Transport.TCP)], 0.0, 0.0, "pbx")
    [judgement] = detector.observe(event(EventKind.CHALLENGE_RESPONSE_FAILED, challenge=b"n"), 0.0)
    assert judgement.attempt.proof is Proof.CLAIMED


def test_with_the_log_as_only_source_lines_are_claims() -> None:
    """While AMI is away and the wire is off, a line is a claim; once AMI is back, it is unconfirmed."""
    detector = joining(AT_ONCE)
    told = event(EventKind.CHALLENGE_RESPONSE_FAILED, source=SECURITY)
    detector.tick(0.0, wire=False, listening=lambda _: None)
    [judgement] = detector.observe(told, 0.0)
    assert (judgement.disposition, judgement.attempt.proof) == (Disposition.COUNTED, Proof.CLAIMED)

    detector.tick(1.0, wire=False, listening=always)
    assert detector.observe(evolve(told, session=b"another"), 1.0) == []


def test_chan_sips_refusal_is_a_guess_that_no_event_reports() -> None:
    """A 403 after a challenge is a guess, and after a login it is the dialplan's.

    MESSAGE and SUBSCRIBE raise no event.
    """
    for logged_in in (False, True):
        detector = joining()
        detector.observe_challenges([], 0.0, 0.0, "pbx")
        detector.tick(0.0, wire=True, listening=always)
        if logged_in:
            detector.observe(event(EventKind.SUCCESSFUL_AUTH, service=Service.SIP), 0.0)
        asked = evolve(challenge(), service=Service.SIP, nonce=b"n")
        refused = evolve(asked, nonce=b"", status=403)
        judged = detector.observe_challenges([asked, refused], 0.0, 0.0, "pbx")
        assert [j.disposition for j in judged] == [Disposition.COUNTED] * (not logged_in)


def test_unprovable_guesses_are_an_alarm() -> None:
    """Guesses with a nonce that was sent elsewhere too raise an alarm.

    They also end a friend's exemption from the limiter for a while.
    """
    detector = joining()
    friend = evolve(event(EventKind.SUCCESSFUL_AUTH, account="204"), password=True)
    detector.observe(friend, 0.0)
    asked = evolve(challenge(), nonce=b"n")
    detector.observe_challenges([asked, evolve(asked, address=ip_address(STRANGER))], 1.0, 1.0, "pbx")
    detector.observe(event(EventKind.CHALLENGE_RESPONSE_FAILED, challenge=b"n"), 1.0)

    assert "evidence.unprovable" in {notice.code for notice in detector.take_alarms()}
    assert detector.unshielded(1.0) == {ip_address(SENDER)}
    assert detector.unshielded(1.0 + UNSHIELDED_FOR) == frozenset()


def test_a_line_of_a_login_makes_no_friend_by_itself() -> None:
    """A line of a login makes a friend only if a challenge or a connection confirms its address."""
    login = evolve(event(EventKind.SUCCESSFUL_AUTH, source=SECURITY), password=True)
    detector = joining()
    detector.observe(login, 0.0)
    assert not detector.friends.has(ip_address(SENDER))

    detector.observe_challenges([challenge()], 0.0, 0.0, "pbx")
    detector.observe(login, 0.0)
    assert detector.friends.has(ip_address(SENDER))


@pytest.mark.parametrize(("failures", "account", "alarms"), [(3, "204", 1), (2, "204", 0), (3, "alice", 0)])
def test_a_phone_that_appears_where_guesses_failed_is_an_alarm(
    failures: int, account: str, alarms: int
) -> None:
    """A contact where guesses failed raises an alarm: its login may be hidden from Asterisk's events."""
    detector = joining((GUESS,), (SENDER, 5062))
    known = Friend("pbx", ip_address(SENDER), "alice", FriendReason.REACHABLE, 0.0, 0.0, 0.5)
    detector.friends.remember(known)
    for number in range(failures):
        detector.observe(port_line(session=b"%d" % number), 1.0)
    detector.take_alarms()
    detector.observe_contact(Contact("pbx", Service.PJSIP, account, ip_address(SENDER)), 2.0)

    assert [n.code for n in detector.take_alarms()] == ["password.guessed"] * alarms


def test_a_friends_guesses_with_nonces_of_its_own_are_an_alarm() -> None:
    """Guesses of a friend with invented nonces raise an alarm; one old nonce may be a phone's.

    Asterisk checks a password for a nonce that it never sent.
    """
    detector = joining()
    detector.observe(evolve(event(EventKind.SUCCESSFUL_AUTH, account="204"), password=True), 0.0)
    detector.observe_challenges([challenge(STRANGER)], 0.0, 0.0, "pbx")
    for number in range(1, UNPROVEN + 1):
        assert detector.unshielded(0.0) == frozenset()
        own = b"own-%d" % number
        guess = event(EventKind.CHALLENGE_RESPONSE_FAILED, session=own, challenge=own)
        detector.observe(guess, float(number))
        detector.tick(number + 2.0)

    assert [notice.code for notice in detector.take_alarms()].count(AlarmCode.EVIDENCE_UNPROVABLE) == 1
    assert detector.unshielded(UNPROVEN + 2.0) == {ip_address(SENDER)}


def test_a_friend_within_a_banned_64_keeps_its_exemption() -> None:
    """A friend within a banned /64 stays on the kernel's list, which also exempts it from that ban."""
    friend = "fd00:19::4:1"
    detector = joining()
    detector.observe(
        evolve(event(EventKind.SUCCESSFUL_AUTH, account="204", address=friend), password=True), 0.0
    )
    asked = evolve(challenge(friend), nonce=b"n")
    detector.observe_challenges([asked, evolve(asked, address=ip_address(STRANGER))], 1.0, 1.0, "pbx")
    detector.observe(event(EventKind.CHALLENGE_RESPONSE_FAILED, challenge=b"n", address=friend), 1.0)
    assert detector.unshielded(1.0) == {ip_address(friend)}

    detector.bans.assume(ip_network("fd00:19::/64"), Scope.SIP_UDP, 100.0)
    assert detector.unshielded(1.0) == frozenset()


def test_a_line_that_waited_for_absent_sources_is_a_claim() -> None:
    """A line that waited at the start is a claim once it is known that AMI and the wire are away."""
    detector = joining(AT_ONCE)
    assert detector.observe(event(EventKind.CHALLENGE_RESPONSE_FAILED, source=SECURITY), 0.0) == []
    (judgement,) = detector.tick(PATIENCE, wire=False, listening=lambda _: None)
    assert (judgement.disposition, judgement.attempt.proof) == (Disposition.COUNTED, Proof.CLAIMED)
