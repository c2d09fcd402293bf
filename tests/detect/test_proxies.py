"""Clients behind a SIP proxy on this host."""

from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from itertools import count
from typing import Any

import pytest
from attrs import evolve

from ringfence.detect import proxies
from ringfence.detect.attribution import Attribution
from ringfence.detect.confirmation import NOT_CONNECTED, KnownSources
from ringfence.detect.conversation import SILENCE
from ringfence.detect.detector import Detector
from ringfence.detect.findings import AttributedAttempt, ClientLogin, Finding
from ringfence.detect.judgement import Disposition, Judgement, Login
from ringfence.detect.nonces import LIFE
from ringfence.detect.proxies import Proxies
from ringfence.detect.rules import RULES
from ringfence.detect.sessions import HORIZON, SESSION_LIFE
from ringfence.values.attempt import Proof
from ringfence.values.ban import Scope
from ringfence.values.event import AMI, Endpoint, EventKind, SecurityEvent, Service, SourceId, Transport
from ringfence.values.friend import Friend, FriendReason
from ringfence.values.network import Address, NetworkSet
from ringfence.values.packet import CopiedAnswer, CopiedRequest

CLIENT, VICTIM, PROXY, HOST = map(ip_address, ("198.18.1.1", "198.18.1.2", "127.0.0.1", "198.18.0.1"))
EDGE = ip_address("198.18.0.2")
ASTERISK, KAMAILIO, PORT = 5060, 5070, 40_000
NONCE = b"1795267645/e6cf05cec2be7ce9be94b846d37a11d2"
OTHER = b"1795267646/00000000000000000000000000000000"
RANDOM = b"612dcf41"  # a nonce of chan_sip
UDP, TCP, TLS = Transport.UDP, Transport.TCP, Transport.TLS
PROXIES = KnownSources(frozenset({"pbx"}), proxies=NetworkSet([ip_network("127.0.0.1")]))
DATAGRAMS = [Endpoint(PROXY, KAMAILIO, UDP), Endpoint(HOST, KAMAILIO, UDP)]
STREAMS = [*DATAGRAMS, Endpoint(HOST, KAMAILIO, TCP)]
CLAIM, PROVEN, LISTED = (Proof.CLAIMED, True), (Proof.NONCE, True), (Proof.CLAIMED, False)
FAILED, UNKNOWN = EventKind.CHALLENGE_RESPONSE_FAILED, EventKind.INVALID_ACCOUNT_ID
SUCCESS, WRONG = EventKind.SUCCESSFUL_AUTH, EventKind.INVALID_PASSWORD


class Pbx:
    """An Asterisk behind a proxy: what the wire copies, and what AMI reports."""

    def __init__(self, *, service: Service = Service.PJSIP, sockets: Iterable[Endpoint] = DATAGRAMS) -> None:
        self.attribution = Attribution(PROXIES)
        self.attribution.proxies.set_sockets(frozenset(sockets))
        self.attribution.observe_loss(-1.0)
        self._service = service
        self._now = count(100.0, 0.01)

    def asks(
        self,
        client: Address,
        call_id: bytes,
        nonce: bytes = b"",
        *,
        sequence: int = 1,
        transport: Transport = UDP,
        method: str = "REGISTER",
    ) -> list[Finding]:
        """Copy a request of a client to the proxy, with credentials if it repeats a nonce."""
        digest = b"%b %b %d" % (call_id, nonce, sequence)
        nonces = (nonce,) if nonce else ()
        asked = CopiedRequest(client, PORT, nonces, (call_id,), (sequence,), bool(nonce), digest)
        asked = evolve(asked, account="alice", transport=transport, method=method)
        return [*self.attribution.observe_requests([asked], next(self._now), "pbx")]

    def breaks(self, client: Address) -> None:
        """Make the TCP connection of a client unread."""
        broken = CopiedRequest(client, PORT, (), (), unread=True, transport=TCP)
        assert [*self.attribution.observe_requests([broken], next(self._now), "pbx")] == []

    def sends_to_proxy(self, nonce: bytes = NONCE, transport: Transport = UDP) -> list[Finding]:
        """Send a challenge from Asterisk to the proxy."""
        sent = CopiedAnswer(PROXY, KAMAILIO, HOST, ASTERISK, b"any", nonce, PROXY, transport=transport)
        return self.sees(sent)

    def answers(
        self,
        client: Address,
        call_id: bytes,
        nonce: bytes = NONCE,
        *,
        sequence: int = 1,
        **values: Any,  # noqa: ANN401 - those of a Challenge
    ) -> list[Finding]:
        """Send an answer from the proxy to a client, such as a challenge. It names no sender of its own."""
        sent = CopiedAnswer(client, PORT, HOST, KAMAILIO, call_id, nonce, VICTIM, sequence=sequence)
        return self.sees(evolve(sent, service=self._service, **values))

    def sees(self, sent: CopiedAnswer) -> list[Finding]:
        """Show an answer on the wire."""
        return [*self.attribution.observe_answers([sent], next(self._now), 1.0, "pbx")]

    def challenges(
        self,
        client: Address,
        call_id: bytes,
        nonce: bytes = NONCE,
        *,
        transport: Transport = UDP,
        method: str = "REGISTER",
    ) -> None:
        """Send a client's request through the proxy, and its challenge; that is no attempt."""
        found = self.asks(client, call_id, transport=transport, method=method)
        found += self.sends_to_proxy(nonce)
        assert attempts(found + self.answers(client, call_id, nonce, transport=transport)) == []

    def guesses(
        self, client: Address, call_id: bytes, nonce: bytes = NONCE, *, transport: Transport = UDP
    ) -> list[Finding]:
        """Repeat a nonce from a client with a wrong password; Asterisk refuses it with another nonce."""
        found = self.asks(client, call_id, nonce, sequence=2, transport=transport)
        found += self.sends_to_proxy(OTHER)
        return found + self.answers(client, call_id, OTHER, sequence=2, transport=transport)

    def reports(
        self,
        kind: EventKind,
        call_id: bytes,
        nonce: bytes = b"",
        **values: Any,  # noqa: ANN401 - those of a SecurityEvent
    ) -> list[Finding]:
        """Report an event of AMI that names the proxy."""
        return [*self.attribution.observe(self.event(kind, call_id, nonce, **values), next(self._now))]

    def event(
        self,
        kind: EventKind,
        call_id: bytes,
        nonce: bytes = b"",
        **values: Any,  # noqa: ANN401 - those of a SecurityEvent
    ) -> SecurityEvent:
        """Return an event of AMI that names the proxy."""
        remote = Endpoint(PROXY, KAMAILIO, UDP)
        event = SecurityEvent(SourceId("pbx", AMI), kind, self._service, remote, 1.0, "alice", call_id)
        return evolve(event, challenge=nonce, response=b"x" if nonce else b"", password=True, **values)

    def waits(self, seconds: float) -> list[Finding]:
        """Wait, and do periodic work."""
        now = next(self._now) + seconds
        self._now = count(now, 0.01)
        return [*self.attribution.tick(now, 1.0, wire=True, listening=NOT_CONNECTED)]


def attempts(found: list[Finding]) -> list[tuple[Address, tuple[Proof, bool]]]:
    """Return the address, the proof and the trust of each attempt."""
    seen = [finding.attempt for finding in found if isinstance(finding, AttributedAttempt)]
    return [(attempt.address, (attempt.proof, attempt.trusted)) for attempt in seen]


def logins(found: list[Finding]) -> list[Address]:
    """Return the address of each login."""
    return [one.event.remote.address for one in found if isinstance(one, ClientLogin)]


# -- the conversation of the client ---------------------------------------------------------------------


def test_a_refused_request_with_credentials_is_a_proven_attempt_of_its_client() -> None:
    """The nonce was sent to this client alone, and Asterisk had sent it to the proxy."""
    pbx = Pbx()
    pbx.challenges(CLIENT, b"a")
    assert attempts(pbx.guesses(CLIENT, b"a")) == [(CLIENT, PROVEN)]


@pytest.mark.parametrize("transport", [UDP, TCP])
def test_a_proxy_that_also_listens_by_tcp_makes_claims(transport: Transport) -> None:
    """The wire cannot read TLS, so another client may have received the nonce."""
    pbx = Pbx(sockets=STREAMS)
    pbx.challenges(CLIENT, b"a", transport=transport)
    assert attempts(pbx.guesses(CLIENT, b"a", transport=transport)) == [(CLIENT, CLAIM)]


@pytest.mark.parametrize(("transport", "scope"), [(UDP, Scope.SIP_UDP), (TCP, Scope.SIP_TCP)])
def test_a_claimed_ban_blocks_the_transport_of_the_client(transport: Transport, scope: Scope) -> None:
    """Guesses by TCP are claims too, because the proxy forwards a refusal over any connection."""
    detector = Detector(RULES, sources=PROXIES)
    detector.set_proxy_sockets(frozenset(STREAMS))
    judged = []
    for number in range(8):
        call_id = b"%d" % number
        asked = CopiedRequest(CLIENT, PORT, (NONCE,), (call_id,), (1,), credentials=True, digest=call_id)
        asked = evolve(asked, transport=transport)
        detector.observe_requests([asked], 100.0 + number, "pbx")
        refusal = CopiedAnswer(CLIENT, PORT, HOST, KAMAILIO, call_id, NONCE, transport=transport, sequence=1)
        effects = detector.observe_answers([refusal], 100.1 + number, 1.0, "pbx")
        judged += [one for one in effects if isinstance(one, Judgement)]
        if judged[-1].decision is not None:
            detector.bans.assume(judged[-1].subject, judged[-1].decision.scope, 1_000.0)

    decisions = [one.decision for one in judged if one.decision is not None]
    assert [(len(one.attempts), one.scope) for one in decisions] == [(5, scope)]
    assert [one.disposition for one in judged] == [Disposition.COUNTED] * 5 + [Disposition.LATE] * 3


def test_a_hidden_request_is_an_attempt_without_credentials() -> None:
    """Bytes that no phone sends, and that hide a request from AMI, are an attempt if the proxy refuses it."""
    pbx = Pbx()
    pbx.asks(CLIENT, b"a\xff")
    assert attempts(pbx.answers(CLIENT, b"a\xff", evasive=True)) == [(CLIENT, CLAIM)]


def test_a_guess_without_an_answer_counts_after_its_silence() -> None:
    """A blind guesser behind a proxy is found like one without a proxy."""
    pbx = Pbx()
    pbx.challenges(CLIENT, b"a")
    pbx.asks(CLIENT, b"blind", NONCE)
    pbx.challenges(VICTIM, b"b", OTHER)
    assert attempts(pbx.waits(SILENCE)) == [(CLIENT, PROVEN)]


def test_a_forwarder_of_websockets_leaves_the_proofs_of_clients() -> None:
    """Nginx on this host asks Asterisk from the proxy's address, by TCP: nonces sent by UDP prove on."""
    pbx = Pbx()
    pbx.sends_to_proxy(OTHER, TCP)
    pbx.challenges(CLIENT, b"a")
    pbx.sends_to_proxy(OTHER, TCP)
    assert attempts(pbx.guesses(CLIENT, b"a")) == [(CLIENT, PROVEN)]


def test_an_accepted_request_is_no_attempt() -> None:
    """A success of the proxy answers the request, and a later refusal of nothing shows nothing."""
    pbx = Pbx()
    pbx.challenges(CLIENT, b"a")
    pbx.asks(CLIENT, b"a", NONCE, sequence=2)
    assert pbx.answers(CLIENT, b"a", b"", sequence=2, status=200) == []
    assert attempts(pbx.answers(CLIENT, b"a", b"", sequence=2)) == []
    assert attempts(pbx.waits(SILENCE)) == []


@pytest.mark.parametrize("sockets", [DATAGRAMS, STREAMS])
def test_chan_sip_behind_a_proxy(sockets: list[Endpoint]) -> None:
    """The wire counts the guess, and the event of AMI, which names only the nonce, is a second report."""
    pbx = Pbx(service=Service.SIP, sockets=sockets)
    pbx.challenges(CLIENT, b"a", RANDOM)
    pbx.asks(CLIENT, b"a", RANDOM, sequence=2)
    found = pbx.answers(CLIENT, b"a", b"", sequence=2, status=403)
    assert attempts(found) == [(CLIENT, PROVEN if sockets is DATAGRAMS else CLAIM)]
    assert attempts(pbx.reports(WRONG, b"0x7f03a8002910", RANDOM)) == []


# -- events that name the proxy -------------------------------------------------------------------------


def test_the_event_of_a_guess_counts_for_its_client_once() -> None:
    """AMI may report a guess before its refusal leaves; whichever comes second is a second report."""
    pbx = Pbx()
    pbx.challenges(CLIENT, b"a")
    pbx.asks(CLIENT, b"a", NONCE, sequence=2)
    assert attempts(pbx.reports(FAILED, b"a", NONCE)) == [(CLIENT, PROVEN)]
    assert attempts(pbx.answers(CLIENT, b"a", OTHER, sequence=2)) == []


def test_an_unknown_account_is_a_claim_of_its_client() -> None:
    """A client that calls without an account counts by the events of AMI, as without a proxy."""
    pbx = Pbx()
    pbx.challenges(CLIENT, b"a", method="INVITE")
    assert attempts(pbx.reports(UNKNOWN, b"a")) == [(CLIENT, CLAIM)]
    assert attempts(pbx.reports(EventKind.CHALLENGE_SENT, b"a", NONCE)) == []


def test_a_forged_notice_with_the_call_id_of_a_client_is_no_claim() -> None:
    """A client of the proxy knows its own Call-ID, and can write it into a notice about a victim."""
    pbx = Pbx()
    pbx.challenges(CLIENT, b"a")
    assert attempts(pbx.reports(UNKNOWN, b"a")) == []
    notice = evolve(
        pbx.event(UNKNOWN, b"a"),
        source=SourceId("pbx", "log:full#notice"),
        remote=Endpoint(VICTIM, PORT, UDP),
        method="INVITE",
        forgeable=True,
    )
    found = [*pbx.attribution.observe(notice, 101.0)]
    assert [one for one in attempts(found + pbx.waits(SILENCE)) if one[1] != LISTED] == []


def test_an_attempt_without_the_proxy_is_proven_by_its_handshake() -> None:
    """A client that has asked through the proxy with this Call-ID calls Asterisk itself."""
    pbx = Pbx()
    pbx.challenges(CLIENT, b"a")
    assert attempts(pbx.reports(UNKNOWN, b"a")) == []
    pbx.asks(CLIENT, b"a", transport=TCP, method="INVITE")
    direct = evolve(pbx.event(UNKNOWN, b"a"), remote=Endpoint(CLIENT, PORT, TCP))
    found = [*pbx.attribution.observe(direct, 101.0)]
    assert (CLIENT, (Proof.HANDSHAKE, True)) in attempts(found)


def test_a_question_of_a_client_that_the_wire_cannot_read_is_nothing() -> None:
    """A client by TLS is unknown, and so is whether its question is a ping: it is not listed."""
    pbx = Pbx(sockets=STREAMS)
    pbx.sends_to_proxy()
    assert pbx.reports(UNKNOWN, b"a") == []


def test_an_event_of_a_client_by_tcp_is_a_claim_about_tcp() -> None:
    """Its client is known by the Call-ID, and a ban blocks the client's transport."""
    pbx = Pbx()
    pbx.challenges(CLIENT, b"a", transport=TCP, method="INVITE")
    [found] = pbx.reports(UNKNOWN, b"a")
    assert isinstance(found, AttributedAttempt)
    assert (found.attempt.proof, found.claimed) == (Proof.CLAIMED, Scope.SIP_TCP)


def test_a_client_that_the_wire_cannot_read_is_listed() -> None:
    """A client by TLS is unknown, so its guesses are unconfirmed attempts of the proxy."""
    pbx = Pbx(sockets=STREAMS)
    pbx.sends_to_proxy()
    assert attempts(pbx.reports(FAILED, b"a", NONCE)) == [(PROXY, LISTED)]
    assert pbx.reports(EventKind.CHALLENGE_SENT, b"a", NONCE) == []
    assert pbx.reports(SUCCESS, b"a") == []


def test_a_guess_of_a_friend_counts_by_its_nonce() -> None:
    """A friend's requests are not copied, and the nonce that went to it alone proves its guess."""
    pbx = Pbx()
    pbx.sends_to_proxy()
    pbx.answers(CLIENT, b"a")
    assert attempts(pbx.reports(FAILED, b"a", NONCE)) == [(CLIENT, PROVEN)]


def test_the_event_of_a_guess_that_could_not_be_read_counts_by_its_refusal() -> None:
    """A client by TCP whose connection became unread counts for each event, before or after its refusal."""
    pbx = Pbx(sockets=STREAMS)
    pbx.breaks(CLIENT)
    pbx.reports(FAILED, b"a", NONCE)
    assert attempts(pbx.answers(CLIENT, b"a", transport=TCP)) == [(CLIENT, CLAIM)]
    assert pbx.answers(CLIENT, b"a", transport=TCP) == []
    assert attempts(pbx.reports(FAILED, b"a", OTHER)) == [(CLIENT, CLAIM)]
    assert pbx.answers(CLIENT, b"c", transport=TCP) == []
    assert attempts(pbx.reports(FAILED, b"c", NONCE)) == [(CLIENT, CLAIM)]
    assert pbx.reports(SUCCESS, b"c") == []
    pbx.reports(FAILED, b"b", NONCE)
    pbx.waits(HORIZON)
    assert pbx.answers(CLIENT, b"b", transport=TCP) == []


def test_a_hidden_guess_that_could_not_be_read_counts_by_its_refusal() -> None:
    """No event follows, but the refusal shows bytes that no phone sends."""
    pbx = Pbx(sockets=STREAMS)
    pbx.breaks(CLIENT)
    found = pbx.answers(CLIENT, b"a\xff", transport=TCP, evasive=True)
    assert attempts(found) == [(CLIENT, CLAIM)]
    assert pbx.answers(CLIENT, b"b\xff", transport=TCP, status=200, evasive=True) == []


@pytest.mark.parametrize("values", [{"forgeable": True}, {"tampered": True}])
def test_an_event_that_a_text_may_have_forged_proves_nothing(values: dict[str, bool]) -> None:
    """It is a claim of the client with its Call-ID."""
    pbx = Pbx()
    pbx.challenges(CLIENT, b"a")
    assert attempts(pbx.reports(FAILED, b"a", NONCE, **values)) == [(CLIENT, CLAIM)]


def test_an_event_of_chan_sip_with_the_next_nonce_is_a_claim() -> None:
    """Only InvalidPassword names the nonce that came back; a forged source causes the other events."""
    pbx = Pbx(service=Service.SIP)
    pbx.challenges(CLIENT, b"a", RANDOM)
    assert attempts(pbx.reports(FAILED, b"0x1", RANDOM)) == [(CLIENT, CLAIM)]


def test_a_direct_guess_that_names_the_proxy_counts_for_its_sender() -> None:
    """A Via ``maddr`` makes chan_sip name the proxy, and sends its challenges there."""
    pbx = Pbx(service=Service.SIP)
    pbx.asks(CLIENT, b"a", RANDOM)
    assert attempts(pbx.reports(WRONG, b"0x1", RANDOM)) == [(CLIENT, CLAIM)]
    sent = CopiedAnswer(PROXY, KAMAILIO, HOST, ASTERISK, b"b\xff", OTHER, CLIENT, evasive=True, sequence=1)
    assert attempts(pbx.sees(sent)) == [(CLIENT, CLAIM)]


def test_a_log_line_about_the_proxy_is_left_out() -> None:
    """A log line repeats what AMI reports, and names no client."""
    pbx = Pbx()
    pbx.challenges(CLIENT, b"a")
    line = evolve(pbx.event(FAILED, b"a"), source=SourceId("pbx", "messages#notice"))
    for service in (Service.PJSIP, Service.SIP):
        assert [*pbx.attribution.observe(evolve(line, service=service), 100.0)] == []


def test_a_manager_login_from_the_address_of_the_proxy_is_not_the_proxys() -> None:
    """A failed manager login from loopback has no client."""
    found = Pbx().reports(WRONG, b"0x1", service=Service.AMI)
    assert attempts(found) == [(PROXY, (Proof.HANDSHAKE, True))]


def test_without_proxies_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Asterisk without a proxy pays nothing for proxies."""
    for name in ("passage", "names", "to_client", "record_nonce"):
        monkeypatch.delattr(Proxies, name)
    pbx = Pbx()
    pbx.attribution.configure(KnownSources(frozenset({"pbx"})))
    pbx.sends_to_proxy()
    assert attempts(pbx.reports(FAILED, b"a", NONCE)) == [(PROXY, PROVEN)]


def test_a_proxy_that_a_reload_brings_is_one() -> None:
    """From then on, the events that name its address are those of its clients."""
    pbx = Pbx()
    pbx.attribution.configure(KnownSources(frozenset({"pbx"})))
    pbx.attribution.configure(PROXIES)
    pbx.attribution.proxies.set_sockets(frozenset(DATAGRAMS))
    assert attempts(pbx.reports(FAILED, b"a", NONCE)) != [(PROXY, PROVEN)]


# -- logins ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", [UDP, TCP])
def test_a_login_names_the_client(transport: Transport) -> None:
    """A login through the proxy makes a friend of the client, and not of the proxy."""
    pbx = Pbx(sockets=STREAMS)
    pbx.challenges(CLIENT, b"a", transport=transport)
    pbx.asks(CLIENT, b"a", NONCE, sequence=2, transport=transport)
    assert logins(pbx.reports(SUCCESS, b"a")) == [CLIENT]

    detector = Detector((), sources=PROXIES)
    assert detector.observe(pbx.event(SUCCESS, b"a"), 1.0) == []
    detector.set_proxy_sockets(frozenset(STREAMS))
    sent = CopiedAnswer(CLIENT, PORT, HOST, KAMAILIO, b"a", NONCE, sequence=1)
    detector.observe_answers([sent], 1.0, 1.0, "pbx")
    asked = CopiedRequest(CLIENT, PORT, (NONCE,), (b"a",), (2,), credentials=True)
    detector.observe_requests([asked], 2.0, "pbx")
    [login] = detector.observe(pbx.event(SUCCESS, b"a"), 3.0)
    assert isinstance(login, Login)
    assert login.friend.address == CLIENT


def test_a_phone_behind_a_proxy_stays_a_friend_after_its_first_day() -> None:
    """It registers each hour. The kernel copies the requests of strangers, and of friends to observe."""
    pbx, detector = Pbx(), Detector((), sources=PROXIES)
    detector.set_proxy_sockets(frozenset(DATAGRAMS))
    for hour in range(1, 73):
        now, nonce = 3_600.0 * hour, b"%d/nonce" % hour
        detector.friends.expire(now)
        detector.tick(now, now, wire=True)
        is_friend = detector.friends.has(CLIENT)
        assert is_friend == (hour > 1)
        sent = CopiedAnswer(CLIENT, PORT, HOST, KAMAILIO, b"a", nonce, sequence=1)
        detector.observe_answers([sent], now, now, "pbx")
        if not is_friend or CLIENT in detector.observed(now):
            asked = CopiedRequest(CLIENT, PORT, (nonce,), (b"a",), (2,), credentials=True, digest=nonce)
            detector.observe_requests([asked], now, "pbx")
        for effect in detector.observe(evolve(pbx.event(SUCCESS, b"a"), time=now), now):
            if isinstance(effect, Login) and effect.befriends:
                detector.friends.add(effect.friend)


def test_all_phones_are_observed_while_there_is_a_proxy() -> None:
    """After a reload without proxies, only new phones are observed, and those that are refused often."""
    detector = Detector((), sources=PROXIES)
    for address, reason in ((CLIENT, FriendReason.AUTHENTICATED), (EDGE, FriendReason.TRUNK)):
        detector.friends.add(Friend("pbx", address, "alice", reason, 0.0, 0.0, 1e9))
    assert detector.observed(10.0) == {CLIENT}
    detector.configure((), KnownSources(frozenset({"pbx"})))
    assert detector.observed(10.0) == set()


def test_a_login_excuses_the_request_that_came_before_it() -> None:
    """To a friend no success is copied, so its request looks as if nothing had answered it."""
    pbx = Pbx()
    pbx.challenges(CLIENT, b"a")
    pbx.asks(CLIENT, b"a", NONCE, sequence=2)
    pbx.reports(SUCCESS, b"a")
    pbx.challenges(VICTIM, b"b", OTHER)
    assert attempts(pbx.waits(SILENCE)) == []
    assert attempts(pbx.guesses(CLIENT, b"c")) == [(CLIENT, PROVEN)]


def test_a_login_with_a_shared_call_id_makes_no_friend() -> None:
    """A sender that knows a phone's Call-ID cannot use the phone's login; a phone that moved waits."""
    pbx = Pbx()
    pbx.challenges(VICTIM, b"a")
    pbx.challenges(CLIENT, b"a", OTHER)
    pbx.asks(CLIENT, b"a", OTHER, sequence=2)
    assert logins(pbx.reports(SUCCESS, b"a")) == []
    pbx.waits(SESSION_LIFE)
    pbx.challenges(CLIENT, b"a")
    pbx.asks(CLIENT, b"a", NONCE, sequence=3)
    assert logins(pbx.reports(SUCCESS, b"a")) == [CLIENT]


def test_a_login_without_a_nonce_of_the_client_makes_no_friend() -> None:
    """A client that has received no challenge has not logged in."""
    pbx = Pbx()
    pbx.challenges(VICTIM, b"v")
    pbx.asks(CLIENT, b"a", NONCE)
    assert logins(pbx.reports(SUCCESS, b"a")) == []


# -- text of other senders ------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", [UDP, TCP])
def test_an_answer_that_the_proxy_forwards_is_nobodys(transport: Transport) -> None:
    """Anyone can have a refusal forwarded; an address that has not asked sent nothing."""
    pbx = Pbx(sockets=STREAMS)
    pbx.challenges(CLIENT, b"a")
    pbx.reports(FAILED, b"a", OTHER)
    for call_id in (b"a", b"b\xff"):
        evasive = not call_id.isascii()
        assert pbx.answers(VICTIM, call_id, evasive=evasive, transport=transport) == []
    assert attempts(pbx.reports(FAILED, b"b\xff", NONCE)) == [(PROXY, LISTED)]


def test_an_answer_that_the_proxy_forwards_confirms_no_line() -> None:
    """A forged log line about a stranger needs more than a challenge from a proxy."""
    pbx = Pbx()
    pbx.asks(VICTIM, b"a")
    pbx.answers(VICTIM, b"a")
    line = pbx.event(FAILED, b"a", source=SourceId("pbx", "messages#notice"))
    forged = evolve(line, remote=Endpoint(VICTIM, PORT, UDP))
    found = [*pbx.attribution.observe(forged, 101.0), *pbx.waits(2.0)]
    assert (VICTIM, CLAIM) not in attempts(found)


def test_a_forwarded_nonce_proves_no_forged_source() -> None:
    """A sender forges requests of a victim, and has a nonce that only it knows forwarded to the victim."""
    pbx = Pbx()
    pbx.asks(VICTIM, b"a")
    pbx.answers(VICTIM, b"a", OTHER)
    assert attempts(pbx.asks(VICTIM, b"a", OTHER, sequence=2)) == []
    assert attempts(pbx.answers(VICTIM, b"a", sequence=2)) == [(VICTIM, CLAIM)]


def test_a_nonce_of_several_clients_makes_a_claim() -> None:
    """PJSIP sends the same nonce to all clients of one second, so a forged source could answer with it."""
    pbx = Pbx()
    pbx.challenges(VICTIM, b"victim")  # requested with the victim's address as a forged source
    pbx.challenges(CLIENT, b"own")
    assert attempts(pbx.guesses(VICTIM, b"victim")) == [(VICTIM, CLAIM)]


def test_a_nonce_that_asterisk_sent_by_tcp_makes_a_claim() -> None:
    """The wire may miss a challenge by TCP."""
    pbx = Pbx()
    pbx.asks(CLIENT, b"a")
    pbx.sends_to_proxy(NONCE, TCP)
    pbx.answers(CLIENT, b"a")
    assert attempts(pbx.guesses(CLIENT, b"a")) == [(CLIENT, CLAIM)]


def test_a_nonce_of_chan_sip_that_left_by_tls_makes_a_claim() -> None:
    """chan_sip repeats the nonce of a Call-ID, so a sender can ask for it directly and as a victim."""
    pbx = Pbx(service=Service.SIP)
    remote = Endpoint(CLIENT, PORT, TLS)
    pbx.reports(EventKind.CHALLENGE_SENT, b"0x1", RANDOM, remote=remote)
    pbx.challenges(VICTIM, b"a", RANDOM)
    pbx.asks(VICTIM, b"a", RANDOM, sequence=2)
    assert attempts(pbx.answers(VICTIM, b"a", b"", sequence=2, status=403)) == [(VICTIM, CLAIM)]


def test_after_a_loss_of_packets_a_nonce_proves_nothing() -> None:
    """A lost packet may have been an answer to another client."""
    pbx = Pbx()
    pbx.challenges(CLIENT, b"a")
    pbx.attribution.observe_loss(100.1)
    assert attempts(pbx.guesses(CLIENT, b"a")) == [(CLIENT, CLAIM)]


def test_an_answer_from_one_proxy_to_another_is_nobodys() -> None:
    """A proxy that sends to itself or to another proxy of this host has no client there."""
    pbx = Pbx()
    pbx.asks(PROXY, b"a\xff")
    assert pbx.answers(PROXY, b"a\xff", evasive=True) == []


# -- the sockets of the proxy ---------------------------------------------------------------------------


def test_while_no_proxy_is_found_each_answer_may_be_a_proxys() -> None:
    """Then a refusal counts only as the answer to a request, and no nonce proves anything."""
    pbx = Pbx(sockets=[])
    assert attempts(pbx.answers(VICTIM, b"\xff", local_port=ASTERISK, evasive=True)) == []
    pbx.challenges(CLIENT, b"a")
    assert attempts(pbx.guesses(CLIENT, b"a")) == [(CLIENT, CLAIM)]


@pytest.mark.parametrize("address", [EDGE, ip_address("0.0.0.0")])
def test_a_proxy_is_known_by_its_socket(address: Address) -> None:
    """Asterisk and the proxy may use one port number on two addresses; a socket may have all addresses."""
    pbx = Pbx(sockets=[Endpoint(address, KAMAILIO, UDP)])
    assert pbx.answers(VICTIM, b"\xff", local_address=EDGE, evasive=True) == []
    hidden = pbx.answers(CLIENT, b"\xff", local_port=ASTERISK, sender=CLIENT, evasive=True)
    assert attempts(hidden) == [(CLIENT, CLAIM)]


def test_the_nonces_of_a_proxy_are_bounded_by_number_and_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten first, and then proves nothing."""
    monkeypatch.setattr(proxies, "MOST", 2)
    known = Proxies(NetworkSet([ip_network("127.0.0.1")]))
    known.set_sockets(frozenset(DATAGRAMS))
    sent = [CopiedAnswer(CLIENT, PORT, HOST, KAMAILIO, b"a", b"%d" % number) for number in range(3)]
    for challenge in sent:
        known.record_nonce(challenge, 0.0)
    assert [known.to_client(one).relayed for one in sent] == [True, False, False]
    known.record_nonce(sent[2], 1.0)
    known.record_nonce(sent[2], LIFE)
    assert [known.to_client(one).relayed for one in sent] == [True, True, False]
