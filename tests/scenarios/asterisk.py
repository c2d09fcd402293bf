"""The reports of a real Asterisk about each action: its events, its log, and its answers on the wire.

The shapes are those of the recordings in tests/captures; ``test_asterisk.py`` compares them. For each action
all reports of all sources are returned in their order: AMI, then the same in the log's SECURITY lines, then
its NOTICE lines; each challenge when it leaves.
"""

from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address

from attrs import evolve, frozen
from tests.scenarios.deeds import Deed, Verb

from ringfence.values.event import AMI, Endpoint, EventKind, SecurityEvent, Service, SourceId, Transport
from ringfence.values.network import Address
from ringfence.values.packet import CopiedAnswer, CopiedRequest

PBX = "pbx"
HERE = ip_address("192.0.2.1")
_AMI = SourceId(PBX, AMI)
_SECURITY = SourceId(PBX, "log:full#security")
_NOTICE = SourceId(PBX, "log:full#notice")
_NOBODY = "<unknown>"  # PJSIP's name for accounts without an endpoint
_UDP_PORT = 5_060
_FIRST_PORT, _PORTS = 10_000, 40_000

Told = SecurityEvent | CopiedAnswer | CopiedRequest


@frozen
class Act:
    """One request of one sender as Asterisk receives it, the ``number``-th of all.

    ``exists``: whether Asterisk has the account now.
    """

    deed: Deed
    address: Address
    account: str
    exists: bool
    time: float
    number: int

    @property
    def session(self) -> bytes:
        """The Call-ID, or chan_sip's name for the dialogue."""
        return b"one" if self.deed.one_call_id else b"call-%d" % self.number

    @property
    def nonce(self) -> bytes:
        """The nonce of a challenge: PJSIP's depends on sender and second alone, chan_sip's is a new one."""
        if self.deed.service is Service.PJSIP:
            return b"%d/%s" % (int(self.time), self.address.packed.hex().encode())
        return b"%08x" % self.number

    @property
    def remote(self) -> Endpoint:
        """The source address and port of the request."""
        port = _FIRST_PORT + int(self.address) % _PORTS
        service = self.deed.service
        transport = Transport.TCP if service is Service.AMI else self.deed.transport
        return Endpoint(self.address, port, transport)

    def event(self, kind: EventKind, account: str | None = None, **said: object) -> SecurityEvent:
        """Return a security event as AMI reports it."""
        account = self.account if account is None else account
        event = SecurityEvent(_AMI, kind, self.deed.service, self.remote, self.time, account, self.session)
        return evolve(event, **said) if said else event  # type: ignore[arg-type]  # the callers are below

    def failed(self, kind: EventKind, account: str | None = None) -> SecurityEvent:
        """Return an event that shows the digest of a wrong answer."""
        nonce = b"1/forged" if self.deed.forged else self.nonce
        return self.event(kind, account, challenge=nonce, response=b"response-%d" % self.number)

    def notice(self, kind: EventKind, account: str | None = None, acl_name: str = "") -> SecurityEvent:
        """Return the event of a NOTICE line; the sender may forge the address in those of PJSIP."""
        pjsip = self.deed.service is Service.PJSIP and not acl_name.startswith("no_extension")
        transport = self.deed.transport if acl_name and self.deed.service is Service.PJSIP else _UNTOLD
        remote = evolve(self.remote, transport=transport)
        session = self.session if pjsip else b""
        event = self.event(kind, account, source=_NOTICE, remote=remote, session=session, acl_name=acl_name)
        return evolve(event, forgeable=True, method="REGISTER") if pjsip else event

    def challenge(self, status: int = 401) -> CopiedAnswer:
        """Return the answer, with its receiver and the address that asked for it."""
        return CopiedAnswer(
            self.address,
            self.remote.port,
            HERE,
            _UDP_PORT,
            self.session,
            self.nonce if status == 401 else b"",
            self.address,
            status=status,
            transport=Transport.UDP if self.deed.transport is Transport.UDP else Transport.TCP,
            evasive=self.deed.verb is Verb.HIDES,
            account=self.account,
            service=self.deed.service,
        )

    def request(self, sequence: int, *, credentials: bool) -> CopiedRequest:
        """Return the copy of a request; one with ``credentials`` answers the challenge before it."""
        return CopiedRequest(
            self.address,
            self.remote.port,
            (self.nonce,) if credentials and not self.deed.forged else (),
            (self.session,),
            (sequence,),
            credentials,
            b"%d" % sequence,
            method="REGISTER",
        )


_UNTOLD = Transport.UNKNOWN
_IN_CLEAR = (Transport.UDP, Transport.TCP, Transport.WS)


def tell(act: Act, heard: Sequence[str]) -> Iterator[Told]:
    """Yield all that the sources in ``heard`` report of ``act``, in the order in which the reports arrive."""
    said, notices = _TELLERS[act.deed.verb, act.deed.service](act)
    for one in _with_requests(act, said):
        if not isinstance(one, SecurityEvent):
            if "wire" in heard and act.deed.transport in _IN_CLEAR:
                yield one
        elif "AMI" in heard:
            yield one
    if "log" in heard:
        yield from (evolve(one, source=_SECURITY) for one in said if isinstance(one, SecurityEvent))
        yield from notices


def _with_requests(act: Act, said: Sequence[Told]) -> Iterator[Told]:
    """Yield each answer after a copy of its request: by UDP, which alone is copied.

    The first request has no credentials, unless its sender cannot receive the challenge.
    """
    asked = 0
    for one in said:
        if isinstance(one, CopiedAnswer) and one.transport is Transport.UDP:
            sequence = act.number * _REQUESTS + asked
            yield act.request(sequence, credentials=bool(asked) or act.deed.forged)
            yield evolve(one, sequence=sequence)
            asked += 1
        else:
            yield one


_REQUESTS = 10  # more than one action has


Said = tuple[list[Told], list[SecurityEvent]]


def _pjsip_fails(act: Act) -> Said:
    """REGISTER, 401, REGISTER with a wrong digest, 401. A forged sender sends the second one at once."""
    failed, sent = act.failed, act.challenge()
    if act.exists:
        first: list[Told] = [] if act.deed.forged else [act.event(EventKind.CHALLENGE_SENT), sent]
        return (
            [*first, failed(EventKind.CHALLENGE_RESPONSE_FAILED), sent],
            [act.notice(EventKind.CHALLENGE_RESPONSE_FAILED)],
        )
    asked, notices = _pjsip_asks(act)
    if act.deed.forged:
        return asked, notices
    unknown = [act.event(EventKind.INVALID_ACCOUNT_ID), failed(EventKind.CHALLENGE_RESPONSE_FAILED, _NOBODY)]
    twice = [*notices, *notices, act.notice(EventKind.CHALLENGE_RESPONSE_FAILED)]
    return [*asked, *unknown, sent], twice


def _pjsip_asks(act: Act) -> Said:
    """Request a challenge and never answer it: for an account that exists no failure follows."""
    if act.exists:
        return [act.event(EventKind.CHALLENGE_SENT), act.challenge()], []
    unknown = act.event(EventKind.INVALID_ACCOUNT_ID)
    told: list[Told] = [unknown, act.event(EventKind.CHALLENGE_SENT, _NOBODY), act.challenge()]
    return told, [act.notice(EventKind.INVALID_ACCOUNT_ID)]


def _pjsip_registers(act: Act) -> Said:
    right = act.event(EventKind.SUCCESSFUL_AUTH, password=True)
    return [act.event(EventKind.CHALLENGE_SENT), act.challenge(), right], []


def _calls(act: Act) -> Said:
    """Dial an extension that does not exist.

    The line names the endpoint that called; chan_sip has an event for it too.
    """
    known = act.account or ("anonymous" if act.deed.service is Service.PJSIP else "")
    notice = act.notice(EventKind.FAILED_ACL, known, _NOT_THERE)
    if act.deed.service is Service.IAX2:
        return [], [notice]
    right: list[Told] = []
    if act.account:
        right = [act.event(EventKind.CHALLENGE_SENT, challenge=act.nonce), act.challenge()]
    if act.deed.service is Service.SIP:
        refused = act.event(EventKind.FAILED_ACL, "00442079460000", acl_name=_NOT_THERE)
        return [*right, refused, act.challenge(_NO_SUCH_NUMBER)], [notice]
    if act.account:
        right = _pjsip_registers(act)[0]
    return [*right, act.challenge(_NO_SUCH_NUMBER)], [notice]


_NOT_THERE = "no_extension_match"
_NO_SUCH_NUMBER = 404


def _sip_fails(act: Act) -> Said:
    """One challenge and one wrong answer.

    The events name the address that a Via names, and the log names the true source.
    """
    return _sip(act, act.failed(EventKind.INVALID_PASSWORD)), [act.notice(EventKind.INVALID_PASSWORD)]


def _sip_registers(act: Act) -> Said:
    return _sip(act, act.event(EventKind.SUCCESSFUL_AUTH, password=True)), []


def _sip(act: Act, answered: SecurityEvent) -> list[Told]:
    events = [act.event(EventKind.CHALLENGE_SENT, challenge=act.nonce), answered]
    if act.deed.naming is not None:
        events = [evolve(event, remote=evolve(event.remote, address=act.deed.naming)) for event in events]
    return [events[0], act.challenge(), events[1]]


def _ami_fails(act: Act) -> Said:
    kind = EventKind.INVALID_PASSWORD if act.exists else EventKind.INVALID_ACCOUNT_ID
    return [act.event(kind)], [act.notice(kind)]


def _ami_registers(act: Act) -> Said:
    return [act.event(EventKind.SUCCESSFUL_AUTH, password=True)], []


def _iax_fails(act: Act) -> Said:
    kind = EventKind.INVALID_PASSWORD if act.exists else EventKind.INVALID_ACCOUNT_ID
    return [], [act.notice(kind)]


def _dialplan(act: Act) -> Said:
    line = act.notice(EventKind.FAILED_ACL, "", "unknown_sip_connection")
    return [], [evolve(line, service=Service.DIALPLAN, session=b"", forgeable=False)]


def _registrar(act: Act) -> Said:
    """Accept the right password and refuse the registration."""
    why = "registrar_attempt_without_configured_aors"
    return [*_pjsip_registers(act)[0], act.event(EventKind.FAILED_ACL, acl_name=why)], []


def _hides(act: Act) -> Said:
    """Send a byte that is not UTF-8: no event follows, only a challenge leaves and a NOTICE is written."""
    told: list[Told] = [act.challenge(), act.challenge()]
    return told, [act.notice(EventKind.CHALLENGE_RESPONSE_FAILED)]


def _tampers(act: Act) -> Said:
    said, notices = _pjsip_fails(act)
    return [evolve(one, tampered=True) if isinstance(one, SecurityEvent) else one for one in said], notices


def _forges_lines(act: Act) -> Said:
    """Write a line to the log for which nothing exists on the wire."""
    return [], [act.notice(EventKind.CHALLENGE_RESPONSE_FAILED)]


_TELLERS: dict[tuple[Verb, Service], Callable[[Act], Said]] = {
    (Verb.FAILS, Service.PJSIP): _pjsip_fails,
    (Verb.FAILS, Service.SIP): _sip_fails,
    (Verb.FAILS, Service.AMI): _ami_fails,
    (Verb.FAILS, Service.IAX2): _iax_fails,
    (Verb.SCANS, Service.PJSIP): _pjsip_asks,
    (Verb.REGISTERS, Service.PJSIP): _pjsip_registers,
    (Verb.REGISTERS, Service.SIP): _sip_registers,
    (Verb.REGISTERS, Service.AMI): _ami_registers,
    (Verb.CALLS, Service.PJSIP): _calls,
    (Verb.CALLS, Service.SIP): _calls,
    (Verb.CALLS, Service.IAX2): _calls,
    (Verb.DIALPLAN, Service.PJSIP): _dialplan,
    (Verb.REGISTRAR, Service.PJSIP): _registrar,
    (Verb.HIDES, Service.PJSIP): _hides,
    (Verb.TAMPERS, Service.PJSIP): _tampers,
    (Verb.FORGES_LINES, Service.PJSIP): _forges_lines,
}
