"""Attribution: how the detector judges events and challenges together.

tests/detect/transcripts/test_recordings.py tests that every interleaving of recordings counts the same.
"""

from ipaddress import ip_address, ip_network
from math import inf

import pytest
from attrs import evolve
from tests.detect.driven import Driven
from tests.detect.events import NOTICES, SECURITY, SENDER, Connected, event

from ringfence.detect.confirmation import GUESS as LEAST
from ringfence.detect.confirmation import PATIENCE, KnownSources
from ringfence.detect.conversation import DIVERTED_SILENCE
from ringfence.detect.judgement import Disposition
from ringfence.detect.rules import RULES, Rule
from ringfence.values.attempt import AttemptKind, Proof
from ringfence.values.ban import Scope
from ringfence.values.event import Endpoint, EventKind, SecurityEvent, Service, SourceId, Transport
from ringfence.values.packet import CopiedAnswer, CopiedRequest

GUESS = RULES[0]
HERE = ip_address("198.18.0.1")
STRANGER = "203.0.113.9"
AT_ONCE = (evolve(GUESS, attempts=1),)


def challenge(address: str = SENDER, *, call_id: bytes = b"call-1", evasive: bool = False) -> CopiedAnswer:
    """Return a challenge that PJSIP sent to ``address`` at its own request."""
    there = ip_address(address)
    return CopiedAnswer(there, 5062, HERE, 5060, call_id, b"1/x", there, evasive, "alice")


def line(address: str = SENDER, session: bytes = b"call-1") -> SecurityEvent:
    """Return a forgeable line of PJSIP that names ``address``."""
    told = event(EventKind.CHALLENGE_RESPONSE_FAILED, source=NOTICES, address=address, session=session)
    return evolve(told, forgeable=True)


def joining(rules: tuple[Rule, ...] = RULES, *connected: tuple[str, int]) -> Driven:
    """Return a detector of a PBX that several sources report, with these TCP connections."""
    return Driven(rules, sources=KnownSources(frozenset({"pbx"})), connections=Connected(*connected))


def test_a_challenge_that_names_no_sender_is_that_of_the_latest_request() -> None:
    """chan_sip cuts a long Via in its answer; then the copied request with its Call-ID names the sender."""
    detector = joining()
    sent = evolve(challenge(call_id=b"a\xff", evasive=True), sender=None)
    assert list(detector.observe_answers([sent], 0.0, 7.0, "pbx")) == []
    asked = CopiedRequest(ip_address(SENDER), 5062, (), (b"a\xff",), (1,))
    detector.observe_requests([asked], 0.0, "pbx")
    [judged] = detector.observe_answers([evolve(sent, sequence=1)], 0.0, 7.0, "pbx")
    assert str(judged.attempt.address) == SENDER


def test_what_is_evasive_counts_by_itself() -> None:
    """Each evasive request counts at once, since no other source can report it.

    The exception is a request that may answer an earlier challenge of its session.
    """
    detector = joining()
    judged = detector.observe_answers(
        [challenge(call_id=b"%d\xff" % n, evasive=True) for n in range(5)], 0.0, 7.0, "pbx"
    )

    assert [j.disposition for j in judged] == [Disposition.COUNTED] * 5
    assert (judged[4].decision is not None, judged[0].attempt.time) == (True, 7.0)
    assert (judged[0].attempt.account, judged[0].attempt.event) == ("alice", EventKind.HIDDEN)
    assert detector.counts.hidden == 5


@pytest.mark.parametrize("credentials", [False, True])
def test_requests_with_redirected_answers_ban_their_sender_narrowly(*, credentials: bool) -> None:
    """Five datagrams whose answers go nowhere are claimed attempts; AMI reports none of them."""
    detector = joining()
    asked = CopiedRequest(ip_address(SENDER), 5062, (), (b"a",), (1,), credentials, redirected=True)
    for number in range(5):
        one = evolve(asked, sequences=(number,), digest=b"%d" % number)
        assert detector.observe_requests([one], 0.0, "pbx") == []
    judged = detector.tick(DIVERTED_SILENCE, wire=True)

    assert [j.disposition for j in judged] == [Disposition.COUNTED] * 5
    kind = EventKind.REFUSED if credentials else EventKind.DIVERTED
    assert {(j.attempt.event, j.attempt.proof) for j in judged} == {(kind, Proof.CLAIMED)}
    assert {j.attempt.credentials for j in judged} == {credentials}
    assert judged[4].decision is not None
    assert judged[4].decision.scope is Scope.SIP_UDP


def test_a_call_decides_once_on_a_subject() -> None:
    """Ten attempts that are judged in one call lead to one ban; those after the decision are late."""
    detector = joining()
    judged = detector.observe_answers(
        [challenge(call_id=b"%d\xff" % n, evasive=True) for n in range(10)], 0.0, 7.0, "pbx"
    )

    assert [j.disposition for j in judged] == [Disposition.COUNTED] * 5 + [Disposition.LATE] * 5
    assert [j.decision is not None for j in judged] == [False] * 4 + [True] + [False] * 5


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


@pytest.mark.parametrize("service", [Service.AMI, Service.PJSIP])
def test_a_broken_event_counts_with_the_connection_that_is_listed_later(service: Service) -> None:
    """A host with very many connections lists a new one late; an event without one is only listed."""
    kind, transport = EventKind.CHALLENGE_RESPONSE_FAILED, Transport.TLS
    told = event(kind, service=service, transport=transport, tampered=True)
    counts = (evolve(GUESS, attempts=1, counts=frozenset(AttemptKind)),)
    for known, standing in (
        ({(ip_address(SENDER), 5062)}, Disposition.COUNTED),
        (set(), Disposition.UNCONFIRMED),
    ):
        connected = Connected()
        detector = Driven(counts, sources=KnownSources(frozenset({"pbx"})), connections=connected)
        assert detector.observe(told, 0.0) == []
        connected.remotes |= known
        assert [j.disposition for j in detector.tick(PATIENCE, wire=True)] == [standing]


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


@pytest.mark.parametrize("repeated", [True, False])
def test_a_line_is_unconfirmed_only_when_ami_has_been_read_beyond_it(*, repeated: bool) -> None:
    """A slow AMI may still repeat a line, and its event counts; a line that it does not repeat is listed."""
    detector = joining()
    detector.observe_read(-inf)
    assert detector.observe(line(), 0.0) == []
    assert detector.tick(PATIENCE) == []
    assert (detector.has_late_reports, detector.waiting) == (True, 1)
    told = [event(EventKind.CHALLENGE_RESPONSE_FAILED)] if repeated else []
    judged = [judgement for one in told for judgement in detector.observe(one, 3.0)]
    detector.observe_read(3.5)
    judged += detector.tick(3.5)
    assert [one.disposition for one in judged] == [
        Disposition.COUNTED if repeated else Disposition.UNCONFIRMED
    ]
    assert (detector.has_late_reports, detector.waiting) == (False, 0)


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


def test_questions_that_count_late_are_a_ban_from_the_last_one_on() -> None:
    """Ten accounts in nine minutes are an enumeration when the tenth is asked for."""
    detector, judged = Driven(RULES), []
    for number in range(10):
        now = 60.0 * number
        asked = event(
            EventKind.INVALID_ACCOUNT_ID,
            now,
            account=f"{number}",
            session=b"%d" % number,
            transport=Transport.TCP,
        )
        judged += detector.observe(asked, now)
    [decision] = [one.decision for one in judged if one.decision is not None]
    assert decision.at == 540.0
