"""Clients behind a SIP proxy on this host."""

from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from itertools import count
from typing import Any

import pytest
from attrs import evolve
from tests.support.listening import connected

from ringfence.detect import proxies
from ringfence.detect.attribution import AttributedAttempt, Attribution, ClientLogin, Finding, NewProof
from ringfence.detect.confirmation import KnownSources
from ringfence.detect.detector import Detector
from ringfence.detect.judgement import Judgement, Login
from ringfence.detect.proxies import MOST_WAITING, PATIENCE, RELAYED, Proxies
from ringfence.detect.rules import RULES
from ringfence.detect.wire import NOT_CONNECTED, Listening
from ringfence.model import (
    AMI,
    Address,
    Challenge,
    Endpoint,
    EventKind,
    Proof,
    Scope,
    SecurityEvent,
    Service,
    SourceId,
    Transport,
)
from ringfence.networks import NetworkSet

CLIENT, VICTIM, PROXY, HOST = map(ip_address, ("198.18.1.1", "198.18.1.2", "127.0.0.1", "198.18.0.1"))
EDGE = ip_address("198.18.0.2")
ASTERISK, KAMAILIO = 5060, 5070
NONCE = b"1795267645/e6cf05cec2be7ce9be94b846d37a11d2"
OTHER = b"1795267646/00000000000000000000000000000000"
FORGED = b"1/11111111111111111111111111111111"
UDP, TCP, TLS = Transport.UDP, Transport.TCP, Transport.TLS
PROXIES = KnownSources(frozenset({"pbx"}), proxies=NetworkSet([ip_network("127.0.0.1")]))
DATAGRAMS = [Endpoint(PROXY, KAMAILIO, UDP), Endpoint(HOST, KAMAILIO, UDP)]
STREAMS = [*DATAGRAMS, Endpoint(HOST, KAMAILIO, TCP)]
CLAIM, PROVEN, LISTED = (Proof.CLAIMED, True), (Proof.NONCE, True), (Proof.CLAIMED, False)


class Pbx:
    """An Asterisk behind a proxy, by the challenges that the wire sees and the events that AMI reports."""

    def __init__(
        self,
        *,
        hop: Transport = UDP,
        service: Service = Service.PJSIP,
        sockets: Iterable[Endpoint] = DATAGRAMS,
    ) -> None:
        self.attribution = Attribution(PROXIES)
        self.attribution.proxies.set_sockets(frozenset(sockets))
        self.attribution.observe_loss(-1.0)
        self._hop, self._service = hop, service
        self._now = count(100.0, 0.01)
        self._opaque = 0

    def challenge(
        self,
        client: Address,
        call_id: bytes,
        nonce: bytes = NONCE,
        leg: Transport = UDP,
    ) -> list[Finding]:
        """Send a challenge to a client through the proxy."""
        return self.hop(call_id, nonce) + self.leg(client, call_id, nonce, leg)

    def hop(
        self, call_id: bytes, nonce: bytes = NONCE, *, port: int = ASTERISK, sender: Address = PROXY
    ) -> list[Finding]:
        """Send a challenge from a port of Asterisk to the proxy; ``sender`` sent the request."""
        self._opaque += 1
        return self.sees(
            PROXY, KAMAILIO, (HOST, port), call_id, nonce, self._hop, sender=sender, relayed=True
        )

    def leg(
        self,
        client: Address,
        call_id: bytes,
        nonce: bytes = NONCE,
        transport: Transport = UDP,
        local: tuple[Address, int] = (HOST, KAMAILIO),
    ) -> list[Finding]:
        """Send a challenge from the proxy to a client, as a copy of the latest hop."""
        return self.sees(client, 40_000, local, call_id, nonce, transport, sender=client)

    def sent(
        self,
        address: Address,
        port: int,
        local: tuple[Address, int],
        call_id: bytes,
        nonce: bytes,
        transport: Transport = UDP,
        *,
        sender: Address,
        relayed: bool = False,
        opaque: bytes | None = None,
    ) -> Challenge:
        """Return a challenge. A Call-ID that is not ASCII hides the request from AMI."""
        sent = Challenge(address, port, *local, call_id, nonce, sender, relayed=relayed, transport=transport)
        random = b"%d" % self._opaque if self._service is Service.PJSIP else b""
        sent = evolve(sent, evasive=not call_id.isascii(), opaque=random if opaque is None else opaque)
        return evolve(sent, service=self._service)

    def sees(self, *values: Any, **options: Any) -> list[Finding]:  # noqa: ANN401 - those of ``sent``
        """Show a challenge on the wire."""
        seen = [self.sent(*values, **options)]
        return [*self.attribution.observe_challenges(seen, next(self._now), 1.0, "pbx")]

    def event(
        self,
        kind: EventKind,
        call_id: bytes,
        nonce: bytes = b"",
        *,
        account: str = "alice",
        service: Service | None = None,
        transport: Transport | None = None,
        forgeable: bool = False,
    ) -> SecurityEvent:
        """Return an event of a request that came from the proxy."""
        remote = Endpoint(PROXY, KAMAILIO, self._hop if transport is None else transport)
        service = service if service is not None else self._service
        event = SecurityEvent(SourceId("pbx", AMI), kind, service, remote, 1.0, account, call_id)
        response = b"x" if nonce else b""
        return evolve(event, challenge=nonce, response=response, password=True, forgeable=forgeable)

    def reports(self, *values: Any, **options: Any) -> list[Finding]:  # noqa: ANN401 - those of ``event``
        """Report an event."""
        return [*self.attribution.observe(self.event(*values, **options), next(self._now))]

    def fails(self, call_id: bytes, nonce: bytes = NONCE, **options: bool) -> list[Finding]:
        """Report a wrong answer to a challenge."""
        sip = self._service is Service.SIP
        kind = EventKind.INVALID_PASSWORD if sip else EventKind.CHALLENGE_RESPONSE_FAILED
        return self.reports(kind, call_id, nonce, forgeable=options.get("forgeable", False))

    def waits(self, seconds: float = PATIENCE, listening: Listening = NOT_CONNECTED) -> list[Finding]:
        """Wait until no event waits any longer."""
        now = next(self._now) + seconds
        self._now = count(now, 0.01)
        return [*self.attribution.tick(now, 1.0, wire=True, listening=listening)]


def attempts(found: list[Finding]) -> list[tuple[Address, tuple[Proof, bool]]]:
    """Return the address, the proof and the trust of each attempt."""
    seen = [finding.attempt for finding in found if isinstance(finding, AttributedAttempt)]
    return [(attempt.address, (attempt.proof, attempt.trusted)) for attempt in seen]


def logins(found: list[Finding]) -> list[Address]:
    """Return the address of each login."""
    return [one.event.remote.address for one in found if isinstance(one, ClientLogin)]


# -- attribution ----------------------------------------------------------------------------------------


def test_an_answer_proves_the_client_that_the_challenge_left_to() -> None:
    """A wrong answer with a nonce that went to one client is a proven attempt of that client."""
    pbx = Pbx()
    pbx.challenge(CLIENT, b"a")
    assert attempts(pbx.fails(b"a")) == [(CLIENT, PROVEN)]


@pytest.mark.parametrize("sockets", [DATAGRAMS, STREAMS])
def test_chan_sip_names_the_client_by_the_nonce(sockets: list[Endpoint]) -> None:
    """An event of chan_sip has no Call-ID, and its random nonce finds the client."""
    pbx = Pbx(service=Service.SIP, sockets=sockets)
    pbx.challenge(CLIENT, b"a", b"612dcf41")
    proof = PROVEN if sockets is DATAGRAMS else CLAIM
    assert attempts(pbx.fails(b"0x7f03a8002910", b"612dcf41")) == [(CLIENT, proof)]


def test_a_proxy_that_also_listens_by_tcp_makes_claims() -> None:
    """The wire cannot read legs by TLS, so a nonce may have gone to another client too."""
    pbx = Pbx(sockets=STREAMS)
    pbx.challenge(CLIENT, b"a")
    assert attempts(pbx.fails(b"a")) == [(CLIENT, CLAIM)]


def test_an_event_may_come_before_its_challenge() -> None:
    """Events that AMI reports before the wire shows the challenge wait for it, in their order."""
    pbx = Pbx()
    assert pbx.reports(EventKind.INVALID_ACCOUNT_ID, b"a", account="nobody") == []
    assert pbx.reports(EventKind.CHALLENGE_SENT, b"a") == []
    assert attempts(pbx.challenge(CLIENT, b"a")) == [(CLIENT, CLAIM)]
    assert pbx.waits() == []


def test_an_unknown_account_is_one_attempt_that_its_answer_proves() -> None:
    """A request for an unknown account is a claim, as without a proxy, and its answer proves it."""
    pbx = Pbx()
    pbx.reports(EventKind.INVALID_ACCOUNT_ID, b"a", account="nobody")
    assert attempts(pbx.challenge(CLIENT, b"a")) == [(CLIENT, CLAIM)]
    pbx.reports(EventKind.INVALID_ACCOUNT_ID, b"a", account="nobody")
    found = pbx.fails(b"a")
    assert attempts(found) == []
    assert [one.address for one in found if isinstance(one, NewProof)] == [CLIENT]


def test_the_client_by_nonce_comes_before_the_latest_client() -> None:
    """If two clients use a Call-ID, the nonce in the answer decides."""
    pbx = Pbx()
    pbx.challenge(CLIENT, b"a")
    pbx.challenge(VICTIM, b"a", OTHER)
    assert attempts(pbx.fails(b"a")) == [(CLIENT, PROVEN)]


def test_a_challenge_that_the_wire_does_not_see_leaves_the_attempt_unconfirmed() -> None:
    """A client by TLS is unknown, so its attempts are listed under the proxy, each after its own wait."""
    pbx = Pbx(sockets=STREAMS)
    found = []
    for _ in range(30):
        pbx.hop(b"a")
        pbx.fails(b"a")
        found += pbx.waits(0.1)
    assert attempts(found + pbx.waits()) == [(PROXY, LISTED)] * 30


@pytest.mark.parametrize(("transport", "scope"), [(UDP, Scope.SIP_UDP), (TCP, Scope.SIP_TCP)])
def test_a_claimed_ban_blocks_the_transport_of_the_leg(transport: Transport, scope: Scope) -> None:
    """The proxy may forward a 401 over any connection, so a client by TCP is banned for a short time too."""
    detector = Detector(RULES, sources=PROXIES)
    detector.set_proxy_sockets(frozenset(STREAMS))
    pbx = Pbx(sockets=STREAMS)
    judged = []
    for number in range(8):
        call_id = b"%d" % number
        hop = pbx.sent(PROXY, KAMAILIO, (HOST, ASTERISK), call_id, NONCE, sender=PROXY, relayed=True)
        leg = pbx.sent(CLIENT, 40_000, (HOST, KAMAILIO), call_id, NONCE, transport, sender=CLIENT)
        detector.observe_challenges([hop, leg], 100.0 + number, 1.0, "pbx")
        failed = pbx.event(EventKind.CHALLENGE_RESPONSE_FAILED, call_id, NONCE)
        judged += [one for one in detector.observe(failed, 100.5 + number) if isinstance(one, Judgement)]
        for one in judged[-1:]:
            if one.decision is not None:
                detector.bans.assume(one.subject, one.decision.scope, 1_000.0)

    decisions = [one.decision for one in judged if one.decision is not None]
    assert [(len(one.attempts), one.scope) for one in decisions] == [(5, scope)]
    assert [str(one.disposition) for one in judged] == ["counted"] * 5 + ["late"] * 3


def test_a_login_names_the_client() -> None:
    """A successful login through the proxy is a login of the client, and not of the proxy."""
    pbx = Pbx()
    pbx.challenge(CLIENT, b"a")
    assert logins(pbx.reports(EventKind.SUCCESSFUL_AUTH, b"a")) == [CLIENT]

    detector = Detector((), sources=PROXIES)
    assert detector.observe(pbx.event(EventKind.SUCCESSFUL_AUTH, b"b"), 1.0) == []
    hop = pbx.sent(PROXY, KAMAILIO, (HOST, ASTERISK), b"c", OTHER, sender=PROXY, relayed=True)
    challenged = [hop, pbx.sent(CLIENT, 40_000, (HOST, KAMAILIO), b"c", OTHER, sender=CLIENT)]
    detector.set_proxy_sockets(frozenset(DATAGRAMS))
    detector.observe_challenges(challenged, 2.0, 1.0, "pbx")
    [login] = detector.observe(pbx.event(EventKind.SUCCESSFUL_AUTH, b"c"), 3.0)
    assert isinstance(login, Login)
    assert login.friend.address == CLIENT


def test_a_phone_that_moved_logs_in_again_later() -> None:
    """A phone keeps its Call-ID when its address changes; a second address in ten minutes makes no friend."""
    pbx = Pbx()
    pbx.challenge(VICTIM, b"a")
    pbx.challenge(CLIENT, b"a", OTHER)
    assert logins(pbx.reports(EventKind.SUCCESSFUL_AUTH, b"a")) == []
    for _ in range(11):
        pbx.waits(60.0)
        pbx.challenge(CLIENT, b"a", OTHER)
    assert logins(pbx.reports(EventKind.SUCCESSFUL_AUTH, b"a")) == [CLIENT]


def test_a_hidden_guess_is_a_claim_of_its_client() -> None:
    """A Call-ID that is not UTF-8 hides a guess from AMI; each leg shows it, whatever its Via names."""
    pbx = Pbx()
    for number in range(3):
        assert attempts(pbx.challenge(CLIENT, b"%d\xff" % number)) == [(CLIENT, CLAIM)]


def test_a_manager_login_from_the_address_of_the_proxy_is_not_the_proxys() -> None:
    """A failed manager login from loopback has no client."""
    found = Pbx().reports(EventKind.INVALID_PASSWORD, b"0x1", service=Service.AMI)
    assert attempts(found) == [(PROXY, (Proof.HANDSHAKE, True))]


def test_a_log_line_about_the_proxy_is_left_out() -> None:
    """A log line repeats what AMI reports, and names no client."""
    pbx = Pbx()
    source = SourceId("pbx", "messages#notice")
    remote = Endpoint(PROXY, KAMAILIO, UDP)
    kind = EventKind.CHALLENGE_RESPONSE_FAILED
    line = SecurityEvent(source, kind, Service.PJSIP, remote, 1.0, "alice", b"a")
    for service in (Service.PJSIP, Service.SIP):
        assert [*pbx.attribution.observe(evolve(line, service=service), 100.0)] == []
    assert pbx.waits() == []


def test_without_proxies_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Asterisk without a proxy pays nothing for proxies."""
    for name in ("passage", "takes", "observe", "observe_leg", "release"):
        monkeypatch.delattr(Proxies, name)
    pbx = Pbx()
    pbx.attribution.configure(KnownSources(frozenset({"pbx"})))
    pbx.hop(b"a")
    assert attempts(pbx.fails(b"a")) == [(PROXY, CLAIM)]


def test_the_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hops, marks and clients are discarded, the oldest first, and a later answer still has its client."""
    monkeypatch.setattr(proxies, "MOST", 8)
    pbx = Pbx()
    for number in range(50):
        pbx.hop(b"hop%d" % number)
        pbx.challenge(CLIENT, b"%d" % number)
    tables = [value for value in vars(pbx.attribution.proxies).values() if isinstance(value, dict)]
    assert len(tables) > 4
    assert all(len(table) <= 10 for table in tables)
    assert pbx.attribution.evicted > 50
    assert pbx.fails(b"0", FORGED) == []
    assert attempts(pbx.challenge(CLIENT, b"0", OTHER)) == [(CLIENT, CLAIM)]


def test_an_event_beyond_the_bound_waits_no_longer() -> None:
    """The oldest event ends its wait early and is listed; none is lost, and one Call-ID blocks no other."""
    pbx = Pbx()
    found = []
    for _ in range(MOST_WAITING + 5):
        found += pbx.fails(b"a")
    assert attempts(found) == [(PROXY, LISTED)] * 5
    assert pbx.attribution.evicted == 5
    assert len(attempts(pbx.waits())) == MOST_WAITING


# -- framing --------------------------------------------------------------------------------------------


def test_a_401_that_the_proxy_forwards_names_no_client() -> None:
    """A 401 with a nonce of the sender's own makes its receiver neither a client nor a receiver."""
    pbx = Pbx()
    pbx.challenge(CLIENT, b"a")
    pbx.leg(VICTIM, b"a", FORGED)
    assert attempts(pbx.fails(b"a", FORGED)) == [(CLIENT, CLAIM)]


def test_a_forged_source_with_a_forwarded_nonce_is_a_claim() -> None:
    """A sender that forges its source and has its own nonce forwarded to the victim proves nothing."""
    pbx = Pbx()
    pbx.challenge(VICTIM, b"a")
    pbx.leg(VICTIM, b"b", FORGED)
    assert attempts(pbx.fails(b"a", FORGED)) == [(VICTIM, CLAIM)]


def test_a_copy_of_a_leg_changes_no_client() -> None:
    """The first leg of a hop names the client; a copy that the proxy forwards to a victim is ignored."""
    pbx = Pbx()
    pbx.challenge(CLIENT, b"a\xff")
    assert attempts(pbx.leg(VICTIM, b"a\xff")) == []
    assert attempts(pbx.fails(b"a\xff")) == []  # the leg has reported it
    pbx.challenge(CLIENT, b"b")
    pbx.leg(VICTIM, b"b")
    assert attempts(pbx.fails(b"b")) == [(CLIENT, CLAIM)]


def test_a_401_that_overtakes_the_leg_is_ignored() -> None:
    """A sender that knows Call-ID and nonce cannot know the opaque before the leg, so it wins no race."""
    pbx = Pbx()
    pbx.hop(b"a")
    pbx.sees(VICTIM, 40_000, (HOST, KAMAILIO), b"a", NONCE, sender=VICTIM, opaque=b"guessed")
    pbx.leg(CLIENT, b"a")
    assert attempts(pbx.fails(b"a")) == [(CLIENT, PROVEN)]


def test_a_copy_of_an_unseen_leg_is_a_claim_at_most() -> None:
    """A client by TLS can have the proxy forward its challenge to a victim, which is no proof."""
    pbx = Pbx(sockets=STREAMS)
    pbx.hop(b"a")
    pbx.leg(VICTIM, b"a")
    assert attempts(pbx.fails(b"a")) == [(VICTIM, CLAIM)]


def test_a_late_copy_of_an_unseen_leg_names_no_client() -> None:
    """A leg that leaves too long after its hop is not Asterisk's."""
    pbx = Pbx(sockets=STREAMS)
    pbx.hop(b"a")
    pbx.waits(RELAYED)
    pbx.leg(VICTIM, b"a")
    assert attempts(pbx.fails(b"a") + pbx.waits()) == [(PROXY, LISTED)]


def test_a_hidden_attempt_by_the_connection_of_a_victim_is_a_claim() -> None:
    """An evasive 401 that the proxy forwards over a victim's TCP connection is no handshake."""
    pbx = Pbx(sockets=STREAMS)
    pbx.challenge(CLIENT, b"a\xff")
    assert attempts(pbx.leg(VICTIM, b"a\xff", transport=TCP)) == []
    pbx.hop(b"b\xff")
    assert attempts(pbx.leg(VICTIM, b"b\xff", transport=TCP)) == [(VICTIM, CLAIM)]


def test_while_no_proxy_is_found_the_wire_proves_nothing() -> None:
    """A 401 from an unknown socket may be one that the proxy forwards, by UDP too."""
    pbx = Pbx(sockets=[])
    assert attempts(pbx.sees(VICTIM, 5060, (HOST, ASTERISK), b"\xff", FORGED, sender=VICTIM)) == []
    assert attempts(pbx.hop(b"a") + pbx.leg(VICTIM, b"a") + pbx.fails(b"a") + pbx.waits()) == [
        (PROXY, LISTED)
    ]


def test_a_copy_to_another_address_ends_the_proof_of_a_nonce() -> None:
    """A sender that predicts the opaque sends the first copy to a victim, and receives the second one."""
    pbx = Pbx()
    pbx.challenge(VICTIM, b"a")
    pbx.leg(VICTIM, b"a")  # the proxy repeats its answer
    pbx.challenge(VICTIM, b"b", OTHER)
    pbx.leg(CLIENT, b"b", OTHER)
    assert attempts(pbx.fails(b"a") + pbx.fails(b"b", OTHER)) == [(VICTIM, PROVEN), (VICTIM, CLAIM)]


def test_a_repeated_nonce_of_chan_sip_keeps_its_client() -> None:
    """A sender asks again, keeps the leg from leaving, and has the proxy send its own copy to a victim."""
    pbx = Pbx(service=Service.SIP)
    pbx.challenge(CLIENT, b"a", b"612dcf41")
    pbx.hop(b"a", b"612dcf41")
    pbx.leg(VICTIM, b"a", b"612dcf41")
    assert attempts(pbx.fails(b"0x1", b"612dcf41")) == [(CLIENT, CLAIM)]


def test_the_receiver_of_a_nonce_comes_before_the_client_of_a_call_id() -> None:
    """A sender that knows the Call-ID of a phone cannot answer under it with a nonce of its own."""
    pbx = Pbx()
    pbx.challenge(VICTIM, b"phone", OTHER)
    pbx.challenge(CLIENT, b"own")
    assert attempts(pbx.fails(b"phone")) == [(CLIENT, PROVEN)]


def test_a_forwarded_401_to_the_proxy_itself_is_no_hop() -> None:
    """A 401 that the proxy sends to itself, and on to a victim, shows no hidden attempt."""
    pbx = Pbx()
    pbx.sees(PROXY, KAMAILIO, (PROXY, KAMAILIO), b"\xff", FORGED, sender=PROXY, relayed=True)
    assert attempts(pbx.leg(VICTIM, b"\xff", FORGED)) == []


def test_a_proxy_on_the_port_number_of_asterisk_is_known_by_its_address() -> None:
    """Asterisk and the proxy may use one port number on two addresses."""
    pbx = Pbx(sockets=[Endpoint(EDGE, ASTERISK, UDP)])
    pbx.hop(b"a")
    pbx.leg(CLIENT, b"a", local=(EDGE, ASTERISK))
    assert attempts(pbx.fails(b"a")) == [(CLIENT, PROVEN)]
    assert attempts(pbx.leg(VICTIM, b"\xff", local=(EDGE, ASTERISK))) == []


def test_a_nonce_of_several_clients_makes_a_claim() -> None:
    """PJSIP sends the same nonce to all clients of one second, so a forged source could answer with it."""
    pbx = Pbx()
    pbx.challenge(VICTIM, b"victim")  # requested with the victim's address as a forged source
    pbx.challenge(CLIENT, b"own")
    assert attempts(pbx.fails(b"victim")) == [(VICTIM, CLAIM)]


def test_a_nonce_whose_leg_is_missing_makes_a_claim() -> None:
    """A hop without a leg may have gone to another client, at once and after its time is over."""
    pbx = Pbx()
    pbx.challenge(VICTIM, b"a")
    pbx.challenge(VICTIM, b"b")
    pbx.hop(b"own")
    assert attempts(pbx.fails(b"a")) == [(VICTIM, CLAIM)]
    pbx.waits(RELAYED)
    assert attempts(pbx.fails(b"b")) == [(VICTIM, CLAIM)]


def test_a_request_of_the_proxy_itself_has_no_client() -> None:
    """A proxy checks whether Asterisk answers its OPTIONS; that challenge goes to nobody else."""
    pbx = Pbx()
    pbx.challenge(CLIENT, b"a")
    pbx.sees(PROXY, KAMAILIO, (HOST, ASTERISK), b"check", NONCE, sender=PROXY)
    assert attempts(pbx.fails(b"a")) == [(CLIENT, PROVEN)]


@pytest.mark.parametrize("service", [Service.PJSIP, Service.SIP])
def test_a_hop_by_tls_makes_claims_for_ten_minutes(service: Service) -> None:
    """A nonce may have left by a hop and a leg that the wire cannot read."""
    pbx = Pbx(service=service)
    pbx.reports(EventKind.CHALLENGE_SENT, b"own", b"612dcf41", transport=TLS)
    pbx.challenge(VICTIM, b"victim", b"612dcf41")
    assert attempts(pbx.fails(b"victim", b"612dcf41")) == [(VICTIM, CLAIM)]


def test_a_hop_by_tcp_proves_no_client_by_udp() -> None:
    """A challenge within a longer TCP segment is not seen, so a nonce by TCP is not exclusive."""
    pbx = Pbx(hop=TCP)
    pbx.challenge(CLIENT, b"a")
    assert attempts(pbx.fails(b"a")) == [(CLIENT, CLAIM)]


def test_after_a_loss_of_packets_a_nonce_proves_nothing() -> None:
    """A lost packet may have been a leg to another client."""
    pbx = Pbx()
    pbx.challenge(CLIENT, b"a")
    pbx.attribution.observe_loss(100.1)
    assert attempts(pbx.fails(b"a")) == [(CLIENT, CLAIM)]


def test_a_nonce_of_chan_sip_that_also_left_directly_makes_a_claim() -> None:
    """chan_sip repeats the nonce of a Call-ID, so a sender can ask for it directly and through the proxy."""
    pbx = Pbx(service=Service.SIP)
    pbx.sees(CLIENT, 5060, (HOST, ASTERISK), b"a", b"612dcf41", sender=CLIENT)
    pbx.challenge(VICTIM, b"a", b"612dcf41")
    assert attempts(pbx.fails(b"0x1", b"612dcf41")) == [(VICTIM, CLAIM)]


# -- evasion --------------------------------------------------------------------------------------------


def test_an_answer_that_overtakes_a_leg_is_proven_by_the_leg() -> None:
    """AMI may report an answer while a hop with its nonce is open; the proof follows when the hop is over."""
    pbx = Pbx()
    pbx.challenge(CLIENT, b"a")
    pbx.hop(b"a")
    assert attempts(pbx.fails(b"a")) == [(CLIENT, CLAIM)]
    assert [one.address for one in pbx.leg(CLIENT, b"a") if isinstance(one, NewProof)] == [CLIENT]


def test_an_answer_to_an_open_hop_of_chan_sip_is_a_claim() -> None:
    """chan_sip uses one nonce for a whole session, so an answer while a hop is open is never proven later."""
    pbx = Pbx(service=Service.SIP)
    pbx.challenge(CLIENT, b"a", b"612dcf41")
    pbx.hop(b"b", b"612dcf41")
    assert attempts(pbx.fails(b"0x1", b"612dcf41")) == [(CLIENT, CLAIM)]
    assert not [one for one in pbx.leg(CLIENT, b"b", b"612dcf41") if isinstance(one, NewProof)]


def test_the_answers_that_wait_for_a_leg_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound an answer stays a claim when the leg follows."""
    monkeypatch.setattr(proxies, "_MOST_AWAITED", 1)
    pbx = Pbx()
    for call_id in (b"a", b"b"):
        pbx.challenge(CLIENT, call_id)
    pbx.hop(b"a")
    assert [attempts(pbx.fails(call_id)) for call_id in (b"a", b"b")] == [[(CLIENT, CLAIM)]] * 2
    assert len([one for one in pbx.leg(CLIENT, b"a") if isinstance(one, NewProof)]) == 1


def test_a_guess_at_chan_sip_whose_challenge_nobody_received_is_listed() -> None:
    """An event of the proxy's address whose nonce never left is listed, and counts for nobody."""
    pbx = Pbx(service=Service.SIP)
    assert pbx.fails(b"0x1", b"70000000") == []
    assert pbx.waits() == []
    assert pbx.attribution.waiting == 1
    assert attempts(pbx.waits()) == [(PROXY, LISTED)]


def test_an_event_of_no_known_client_that_is_no_attempt_is_ignored() -> None:
    """A challenge that PJSIP reports for the proxy's address, and that no client received, is no attempt."""
    pbx = Pbx()
    assert pbx.reports(EventKind.CHALLENGE_SENT, b"a", NONCE) == []
    assert pbx.waits() == []


def test_a_nonce_with_one_receiver_that_it_does_not_prove_names_no_client() -> None:
    """After a loss of packets the nonce may have another receiver, so the event stays unconfirmed."""
    pbx = Pbx()
    pbx.challenge(CLIENT, b"a")
    pbx.attribution.observe_loss(100.5)
    pbx.fails(b"unseen")
    assert attempts(pbx.waits()) == [(PROXY, LISTED)]


def test_an_open_hop_to_another_client_proves_nothing() -> None:
    """The last open hop with a nonce shows whether another client has received it."""
    pbx = Pbx()
    pbx.challenge(VICTIM, b"a")
    pbx.hop(b"own")
    assert attempts(pbx.fails(b"a")) == [(VICTIM, CLAIM)]
    assert pbx.leg(CLIENT, b"own") == []


def test_an_answer_whose_leg_is_missing_counts_for_the_receiver_of_its_nonce() -> None:
    """A sender can answer its own request before Asterisk does, so that the proxy sends no leg."""
    pbx = Pbx()
    pbx.challenge(CLIENT, b"asked")
    for number in range(3):
        assert attempts(pbx.fails(b"%d" % number)) == [(CLIENT, PROVEN)]


def test_a_challenge_without_an_event_is_an_attempt_of_its_client() -> None:
    """Two Authorization headers can suppress the event; then AMI reports fewer events than challenges."""
    pbx = Pbx()
    pbx.reports(EventKind.CHALLENGE_SENT, b"a")
    pbx.challenge(CLIENT, b"a")
    pbx.waits(1.0, connected(0.0))
    for number in range(3):
        pbx.challenge(CLIENT, b"%d" % number)
    assert attempts(pbx.waits(6.0, connected(0.0))) == [(CLIENT, CLAIM)] * 3


@pytest.mark.parametrize("nonce", [b"", FORGED])
def test_an_answer_with_an_unknown_nonce_is_a_claim(nonce: bytes) -> None:
    """``Authorization: DIGEST`` empties the nonce of the event, and a first header can replace it."""
    pbx = Pbx()
    pbx.challenge(CLIENT, b"a")
    assert attempts(pbx.fails(b"a", nonce)) == [(CLIENT, CLAIM)]


def test_an_unknown_nonce_at_chan_sip_is_a_claim() -> None:
    """chan_sip checks a password with any nonce and only sends another challenge, which proves no address."""
    pbx = Pbx(service=Service.SIP)
    pbx.challenge(CLIENT, b"a", b"612dcf41")
    assert pbx.reports(EventKind.CHALLENGE_SENT, b"0x1", b"612dcf41") == []
    assert pbx.reports(EventKind.CHALLENGE_SENT, b"0x1", b"70000000") == []
    assert attempts(pbx.challenge(CLIENT, b"a", b"70000000")) == [(CLIENT, CLAIM)]


def test_a_failure_that_names_the_next_nonce_of_chan_sip_is_a_claim() -> None:
    """Only InvalidPassword names the nonce that came back; a forged source causes the other events."""
    pbx = Pbx(service=Service.SIP)
    pbx.challenge(CLIENT, b"a", b"612dcf41")
    found = pbx.reports(EventKind.CHALLENGE_RESPONSE_FAILED, b"0x1", b"612dcf41")
    assert attempts(found) == [(CLIENT, CLAIM)]


def test_a_guess_at_chan_sip_that_names_the_proxy_counts_for_its_sender() -> None:
    """A direct guess with ``maddr=127.0.0.1`` is handled as without a proxy, also if it comes early."""
    pbx = Pbx(service=Service.SIP)
    pbx.sees(CLIENT, 5060, (HOST, ASTERISK), b"a", b"612dcf41", sender=CLIENT)
    assert attempts(pbx.fails(b"0x1", b"612dcf41")) == [(CLIENT, PROVEN)]
    assert pbx.fails(b"0x2", b"70000000") == []
    pbx.sees(CLIENT, 5060, (HOST, ASTERISK), b"b", b"70000000", sender=CLIENT)
    assert attempts(pbx.waits()) == [(CLIENT, PROVEN)]


def test_a_direct_guess_whose_challenge_goes_to_the_proxy_counts_for_its_sender() -> None:
    """A hop answers a request of the proxy; a Via ``maddr`` makes none."""
    pbx = Pbx()
    assert attempts(pbx.hop(b"a\xff", sender=CLIENT)) == [(CLIENT, CLAIM)]


def test_a_direct_guess_with_a_call_id_of_the_proxy_counts_for_its_sender() -> None:
    """A Call-ID that also went through the proxy hides no direct challenge, from any port of Asterisk."""
    pbx = Pbx()
    for port in (ASTERISK, 5080):
        pbx.hop(b"%d\xff" % port)
        found = pbx.sees(CLIENT, 5060, (HOST, port), b"%d\xff" % port, OTHER, sender=CLIENT)
        assert attempts(found) == [(CLIENT, CLAIM)]


def test_a_forgeable_event_proves_nothing() -> None:
    """An event that a text may have forged is a claim of the client that its challenge went to."""
    pbx = Pbx()
    pbx.challenge(CLIENT, b"a")
    assert attempts(pbx.fails(b"a", forgeable=True)) == [(CLIENT, CLAIM)]
