"""Realistic phones: they register, renew, use a wrong password, subscribe, keep alive, reboot and roam.

    with Lab.made("22", configured()) as lab:
        assert a_day(lab, "198.19.90").wrong == {}

A phone is a UDP socket in the attacker's namespace that behaves like common phones. It uses the nonce of the
last answer again and counts its uses (``nc``), and takes a new nonce if that one is stale. It sends a request
without an answer again after half a second, then a second, and so on. It answers Asterisk's requests
(OPTIONS, NOTIFY).
"""

import hashlib
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from attrs import define, evolve, field, frozen
from tests.support.asterisk_files import PASSWORD, pjsip_account
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4, socket_in
from tests.support.sip_wire import Challenge, challenge_of, status_of

_T = TypeVar("_T")

NAME = "pbx.example.org"
"""A name of the PBX, for phones that ask for one."""
OFFICE = 50
NUMBERS = OFFICE + 4
"""The number of accounts, ``phone1`` and so on: the phones of an office, and some single phones."""

NONCE_LASTS = 2
"""Asterisk treats a nonce as stale after so many seconds (PJSIP; its default is 32)."""

_NO_DIALOG = 481
_MOST_NONCES = 5
_FIRST_WAIT, _LONGEST_WAIT, _PATIENCE = 0.5, 4.0, 20.0  # seconds: T1, T2, and when a phone gives up
_HEADER = re.compile(rb"\r\n(Via|v|From|f|To|t|Call-ID|i|CSeq|Contact|m):[ \t]*([^\r]*)", re.IGNORECASE)
_QOP = re.compile(rb'qop="auth"')
_STALE = re.compile(rb"stale=\"?true", re.IGNORECASE)
_TAG = re.compile(rb";tag=([^;\r]+)")
_SHORT = {b"v": b"via", b"f": b"from", b"t": b"to", b"i": b"call-id", b"m": b"contact"}

_AOR = "max_contacts = 2\nminimum_expiration = 10\nqualify_frequency = 2\n"
_CHAN_SIP = """\
[{name}]
type = friend
host = dynamic
context = phones
subscribecontext = phones
nat = force_rport,comedia
qualify = yes
secret = {password}

"""
_EXTENSIONS = """\
[phones]
exten => 100,hint,Custom:desk
exten => 100,1,Answer()
 same => n,Wait(1)
 same => n,Hangup()
"""


def configured(release: str = "22") -> dict[str, str]:
    """Return the configuration of a laboratory's Asterisk with the phones' accounts."""
    names = [f"phone{number}" for number in range(1, NUMBERS + 1)]
    texts = {"pjsip.conf": pjsip_accounts(names), "extensions.conf": _EXTENSIONS}
    chan_sip = "".join(_CHAN_SIP.format(name=name, password=PASSWORD) for name in names)
    return texts | ({"sip.conf": chan_sip} if release == "16" else {})


def pjsip_accounts(names: Iterable[str]) -> str:
    """Return the sections of these phones for pjsip.conf."""
    auth = f"nonce_lifetime = {NONCE_LASTS}\n"
    return "".join(
        pjsip_account(name, endpoint="rewrite_contact = yes\n", auth=auth, aor=_AOR) for name in names
    )


@frozen
class _Call:
    """The identifiers and counters of one registration or subscription."""

    call_id: str = field(factory=lambda: os.urandom(8).hex())
    tag: str = field(factory=lambda: os.urandom(4).hex())
    sequence: int = 0
    remote_tag: str = ""
    challenge: Challenge | None = None
    counted: bool = False
    uses: int = 0

    def next(self) -> "_Call":
        """Return the identifiers of the next request."""
        return evolve(self, sequence=self.sequence + 1, uses=self.uses + 1)

    def challenged(self, answer: bytes, challenge: Challenge) -> "_Call":
        """Return it with the nonce of an answer, whose uses are counted from zero."""
        return evolve(self, challenge=challenge, counted=_QOP.search(answer) is not None, uses=0)


@define
class Phone:
    """One phone: an account, a password, and a socket at its present address."""

    account: str
    where: socket.socket
    target: tuple[str, int] = (PBX_IPV4, 5060)
    password: str = PASSWORD
    host: str = PBX_IPV4
    """The host that it asks for: the address of the PBX, or a name."""
    patience: float = _PATIENCE
    """Seconds after which it gives up a request."""
    asked: int = 0
    """The number of requests that it has sent, without retransmissions."""
    answered: int = 0
    """The number of Asterisk's requests that it has answered."""
    _registration: _Call = field(factory=_Call)
    _subscription: _Call = field(factory=_Call)
    _moved: bool = False
    """Whether it moved since it subscribed."""

    def register(self, password: str = "", expires: int = 60) -> int:
        """Register, or renew with the same Call-ID; return the status of the final answer."""
        self._registration, status, _ = self._authorized(
            self._registration, "REGISTER", password or self.password, [f"Expires: {expires}"]
        )
        return status

    def unregister(self) -> int:
        """End the registration."""
        return self.register(expires=0)

    def subscribe(self, expires: int = 60) -> int:
        """Subscribe to the state of extension 100, or renew it; Asterisk's NOTIFY is answered.

        Asterisk ends a subscription if no NOTIFY reaches the phone, which happens after it moved. Then this
        phone begins a new subscription, as real ones do.
        """
        headers = [f"Expires: {expires}", "Event: dialog", "Accept: application/dialog-info+xml"]
        call, status, answer = self._authorized(self._subscription, "SUBSCRIBE", self.password, headers)
        if status == _NO_DIALOG and self._moved:
            call, status, answer = self._authorized(_Call(), "SUBSCRIBE", self.password, headers)
        tag = _TAG.search(_headers(answer).get(b"to", b""))
        self._subscription = evolve(call, remote_tag=tag[1].decode("ascii")) if tag and status < 300 else call
        self._moved = False
        return status

    def ping(self) -> int:
        """Keep a router's port mapping with an OPTIONS, as many phones do; any answer will do."""
        status, _ = self._exchange("OPTIONS", _Call().next(), [])
        return status

    def keep_alive(self) -> None:
        """Keep a router's port mapping with an empty line (RFC 5626), which gets no answer."""
        self.where.sendto(b"\r\n\r\n", self.target)

    def listen(self, seconds: float) -> None:
        """Answer Asterisk's requests for ``seconds``."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._receive(left)

    def reboot(self) -> None:
        """Forget everything but the account."""
        self._registration, self._subscription = _Call(), _Call()

    def move(self, where: socket.socket) -> None:
        """Continue from another address, with the same Call-ID and the nonce from the last address."""
        self.where, self._moved = where, True

    def _authorized(
        self, call: _Call, method: str, password: str, headers: Sequence[str]
    ) -> tuple[_Call, int, bytes]:
        """Send a request, with a digest if Asterisk wants one, and again if the nonce was stale."""
        status, answer = 0, b""
        for _ in range(_MOST_NONCES):
            call = call.next()
            digest = [self._digest(method, call, password)] if call.challenge is not None else []
            status, answer = self._exchange(method, call, [*headers, *digest])
            asked = challenge_of(answer)
            if asked is None or (digest and not _STALE.search(answer)):
                break
            call = call.challenged(answer, asked)
        return call, status, answer

    def _digest(self, method: str, call: _Call, password: str) -> str:
        challenge = call.challenge
        assert challenge is not None
        uri = self._uri(method)
        ha1 = _md5(f"{self.account}:{challenge.realm}:{password}")
        ha2 = _md5(f"{method}:{uri}")
        parts = [
            f'username="{self.account}"', f'realm="{challenge.realm}"', f'nonce="{challenge.nonce}"',
            f'uri="{uri}"', "algorithm=MD5",
        ]  # fmt: skip
        between = challenge.nonce
        if call.counted:
            count, own = f"{call.uses:08x}", os.urandom(4).hex()
            parts += ["qop=auth", f"nc={count}", f'cnonce="{own}"']
            between = f"{between}:{count}:{own}:auth"
        parts.append(f'response="{_md5(f"{ha1}:{between}:{ha2}")}"')
        header = "Authorization" if challenge.status == 401 else "Proxy-Authorization"
        return f"{header}: Digest {', '.join(parts)}"

    def _exchange(self, method: str, call: _Call, headers: Sequence[str]) -> tuple[int, bytes]:
        """Send a request repeatedly until its final answer comes; return status 0 if none comes."""
        request = self._request(method, call, headers)
        self.asked += 1
        wait, given_up = _FIRST_WAIT, time.monotonic() + self.patience
        while time.monotonic() < given_up:
            self.where.sendto(request, self.target)
            again = time.monotonic() + wait
            while (left := again - time.monotonic()) > 0:
                answer = self._receive(left)
                if answer is not None and _answers(answer, method, call):
                    return status_of(answer), answer
            wait = min(2 * wait, _LONGEST_WAIT)
        return 0, b""

    def _request(self, method: str, call: _Call, headers: Sequence[str]) -> bytes:
        here, port = self.where.getsockname()
        own = f"sip:{self.account}@{self.host}"
        to = own if method == "REGISTER" else f"sip:100@{self.host}"
        lines = [
            f"{method} {self._uri(method)} SIP/2.0",
            f"Via: SIP/2.0/UDP {here}:{port};rport;branch=z9hG4bK{os.urandom(6).hex()}",
            "Max-Forwards: 70",
            f"From: <{own}>;tag={call.tag}",
            f"To: <{to}>" + (f";tag={call.remote_tag}" if call.remote_tag else ""),
            f"Call-ID: {call.call_id}",
            f"CSeq: {call.sequence} {method}",
            f"Contact: <sip:{self.account}@{here}:{port}>",
            "User-Agent: Desk phone",
            *headers,
            "Content-Length: 0",
        ]
        return "\r\n".join([*lines, "", ""]).encode()

    def _uri(self, method: str) -> str:
        port = f":{self.target[1]}"
        return f"sip:{self.host}{port}" if method == "REGISTER" else f"sip:100@{self.host}{port}"

    def _receive(self, seconds: float) -> bytes | None:
        """Return the next answer, or None; a request of Asterisk is answered."""
        self.where.settimeout(max(seconds, 0.001))
        try:
            message = self.where.recv(65_535)
        except (TimeoutError, ConnectionRefusedError):
            return None
        if status_of(message):
            return message
        if (ours := reply(message)) is not None:
            self.where.sendto(ours, self.target)
            self.answered += 1
        return None


def _answers(answer: bytes, method: str, call: _Call) -> bool:
    headers = _headers(answer)
    meant = f"{call.sequence} {method}".encode(), call.call_id.encode()
    return status_of(answer) >= 200 and (headers.get(b"cseq"), headers.get(b"call-id")) == meant


def _headers(message: bytes) -> dict[bytes, bytes]:
    """Return the headers that identify a transaction; the first one of each name counts."""
    found: dict[bytes, bytes] = {}
    for name, value in _HEADER.findall(message):
        found.setdefault(_SHORT.get(name.lower(), name.lower()), value)
    return found


def reply(request: bytes) -> bytes | None:
    """Return the 200 to a request of Asterisk; None for an ACK, and for anything but a request.

    The answer to a REGISTER contains the contact of the request, for two minutes.
    """
    headers = _headers(request)
    if request.startswith(b"ACK ") or not {b"via", b"from", b"to", b"call-id", b"cseq"} <= headers.keys():
        return None
    contact = headers.get(b"contact", b"*")
    to = headers[b"to"] if b";tag=" in headers[b"to"] else headers[b"to"] + b";tag=phone"
    lines = [
        b"SIP/2.0 200 OK",
        b"Via: " + headers[b"via"],
        b"From: " + headers[b"from"],
        b"To: " + to,
        b"Call-ID: " + headers[b"call-id"],
        b"CSeq: " + headers[b"cseq"],
        *([b"Contact: " + contact, b"Expires: 120"] if request.startswith(b"REGISTER ") else []),
        b"Content-Length: 0",
    ]
    return b"\r\n".join([*lines, b"", b""])


@contextmanager
def phones_at(
    lab: Lab,
    address: str,
    accounts: Sequence[str],
    target: tuple[str, int] = (PBX_IPV4, 5060),
    host: str = PBX_IPV4,
) -> Iterator[list[Phone]]:
    """Yield phones behind one address, each with its own port, like phones behind a router."""
    with ExitStack() as stack:
        yield [
            Phone(account, stack.enter_context(socket_at(lab, address)), target, host=host)
            for account in accounts
        ]


@contextmanager
def socket_at(lab: Lab, address: str) -> Iterator[socket.socket]:
    """Yield a UDP socket at an address of the attacker's side."""
    with socket_in(lab.network.attacker, socket.AF_INET, socket.SOCK_DGRAM) as where:
        where.bind((address, 0))
        yield where


def together(phones: Sequence[Phone], do: Callable[[Phone], _T]) -> list[_T]:
    """Make every phone do the same at the same time, and return the results."""
    with ThreadPoolExecutor(len(phones)) as pool:
        return list(pool.map(do, phones))


@define
class Day:
    """The actions of phones: every step with its final statuses, and the number of requests."""

    ended: dict[str, list[int]] = field(factory=dict)
    requests: int = 0
    answered: int = 0

    def ends(self, step: str, *statuses: int) -> None:
        """Record the final statuses of a step."""
        self.ended.setdefault(step, []).extend(statuses)

    def count(self, phones: Sequence[Phone]) -> None:
        """Add the requests of these phones."""
        self.requests += sum(phone.asked for phone in phones)
        self.answered += sum(phone.answered for phone in phones)

    @property
    def wrong(self) -> Mapping[str, list[int]]:
        """The steps with a wrong status: it must be 200, unless the password was mistyped."""
        return {
            step: statuses
            for step, statuses in self.ended.items()
            if not set(statuses) <= ({401, 403} if step == "mistyped" else {200})
        }


def a_day(lab: Lab, network: str, port: int = 5060, host: str = PBX_IPV4) -> Day:
    """Run everything that phones do, from addresses of ``network`` (``198.19.90``); they ask for ``host``."""
    day, target = Day(), (PBX_IPV4, port)
    single = [f"phone{number}" for number in range(OFFICE + 1, NUMBERS + 1)]
    for last, (account, live) in enumerate(
        zip(single, (_steady, _mistyping, _chatty, _roaming), strict=True), 1
    ):
        with phones_at(lab, f"{network}.{last}", [account], target, host) as [phone]:
            live(lab, phone, day, f"{network}.{100 + last}")
            day.count([phone])
    accounts = [f"phone{number}" for number in range(1, OFFICE + 1)]
    with phones_at(lab, f"{network}.50", accounts, target, host) as office:
        _office(office, day)
        day.count(office)
    return day


def _steady(lab: Lab, phone: Phone, day: Day, other: str) -> None:
    """Register, renew with the same nonce and with a stale one, then unregister."""
    day.ends("registered", phone.register())
    day.ends("renewed", *(phone.register() for _ in range(3)))
    phone.listen(NONCE_LASTS + 0.5)
    day.ends("renewed with a stale nonce", phone.register())
    day.ends("unregistered", phone.unregister())


def _mistyping(lab: Lab, phone: Phone, day: Day, other: str) -> None:
    """Register with a password that its user mistypes twice."""
    day.ends("mistyped", phone.register(password="corect-horse"), phone.register(password="correct-hose"))
    phone.reboot()
    day.ends("typed right", phone.register(), phone.register())


def _chatty(lab: Lab, phone: Phone, day: Day, other: str) -> None:
    """Subscribe to an extension's state, and keep a router's port mapping in every way."""
    day.ends("registered", phone.register())
    day.ends("subscribed", phone.subscribe())
    for _ in range(5):
        phone.keep_alive()
        phone.ping()
    phone.listen(0.5)
    day.ends("subscribed again", phone.subscribe())
    day.ends("renewed", phone.register())


def _roaming(lab: Lab, phone: Phone, day: Day, other: str) -> None:
    """Move to another network and back during a registration."""
    day.ends("registered", phone.register())
    home = phone.where
    with socket_at(lab, other) as away:
        for where in (away, home, away, home):
            phone.move(where)
            day.ends("roamed", phone.register(), phone.register())


def _office(office: Sequence[Phone], day: Day) -> None:
    """Run fifty phones behind one address: switched on together, two power cuts, a mistyped password."""
    day.ends("an office registered", *together(office, Phone.register))
    together(office, _rest)  # phones pause between the registration and the subscription
    day.ends("an office subscribed", *together(office, Phone.subscribe))
    for _ in range(2):
        for phone in office:
            phone.reboot()
        day.ends("an office registered after a power cut", *together(office, Phone.register))
    day.ends("mistyped", office[7].register(password="corect-horse"))
    day.ends("typed right", office[7].register())
    together(office, _rest)
    day.ends("an office renewed", *together(office, Phone.register))
    day.ends("an office unregistered", *together(office, Phone.unregister))


def _rest(phone: Phone) -> int:
    phone.keep_alive()
    phone.listen(0.5)
    return 0


def _md5(text: str) -> str:
    return hashlib.md5(text.encode("latin-1"), usedforsecurity=False).hexdigest()
