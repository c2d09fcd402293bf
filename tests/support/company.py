"""The phones of a company and some scanners, in the attacker's namespace; prints a line of JSON.

    ip netns exec NS python -m tests.support.company --phones 500 --calls 10 --packets 20 --seconds 40

The phones register, ten of them at each address. Then each renews its registration every minute, and calls
are made to extension 100. Asterisk answers a call and hangs up. Scanners of other addresses send OPTIONS,
and REGISTER and INVITE for accounts that do not exist, without a digest. Every 20 s other addresses do so.

After the phones have registered, the line "ready" is printed, and the time begins. All sockets belong to one
process and one thread. The numbers are limited. It sends only within the laboratory's networks.
"""

import argparse
import asyncio
import json
import os
import re
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import asdict, dataclass, replace

from tests.support.asterisk_files import PASSWORD
from tests.support.network import PBX_IPV4
from tests.support.phones import reply
from tests.support.sip_wire import Request, challenge_of, status_of

MOST_PHONES = 1_000
MOST_SECONDS = 120.0
MOST_A_SECOND = 100.0
RENEW = 60.0
"""Seconds from one registration of a phone to the next."""
AT_EACH = 10
SCANNERS = 10
"""The number of addresses that scan at a time."""
_SCAN = 20.0  # seconds from the first packet of a scanner to its last one
_START = 50.0  # registrations a second in the beginning
_WITHIN = 10.0  # seconds after which a registration or call has failed
_TARGET = (PBX_IPV4, 5060)
_SDP = (
    "v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
    "m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
)
_LENGTH = b"Content-Length: 0\r\n\r\n"
_CALL_ID = re.compile(rb"\r\n(?:Call-ID|i):[ \t]*([^\r]*)", re.IGNORECASE)
_PJSIP = """\
[{name}]
type = endpoint
context = phones
disallow = all
allow = ulaw
auth = {name}
aors = {name}
rewrite_contact = yes
direct_media = no

[{name}]
type = auth
auth_type = userpass
username = {name}
password = {password}

[{name}]
type = aor
max_contacts = 1
remove_existing = yes
qualify_frequency = 60

"""
_EXTENSIONS = "[phones]\nexten => 100,1,Answer()\n same => n,Wait(1)\n same => n,Hangup()\n"


@dataclass
class Done:
    """What was done, and how often it failed: registrations, calls, and packets of scanners."""

    registered: int = 0
    unregistered: int = 0
    called: int = 0
    uncalled: int = 0
    scanned: int = 0


def configured(phones: int) -> dict[str, str]:
    """Return the configuration of Asterisk for this number of phones."""
    accounts = (_PJSIP.format(name=f"desk{number}", password=PASSWORD) for number in range(phones))
    return {"pjsip.conf": "".join(accounts), "extensions.conf": _EXTENSIONS}


class Phone(asyncio.DatagramProtocol):
    """One phone: an account and a socket. It answers Asterisk's requests."""

    def __init__(self, number: int) -> None:
        self.address = f"198.19.{100 + number // AT_EACH}.9"
        self._account = f"desk{number}"
        self._sequence = 0
        self._call_id = os.urandom(8).hex().encode()
        self._answers: dict[bytes, asyncio.Queue[bytes]] = {}
        self._transport: asyncio.DatagramTransport

    async def start(self) -> None:
        """Bind the socket."""
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, local_addr=(self.address, 0), remote_addr=_TARGET)

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        """Keep the socket."""
        self._transport = transport

    def datagram_received(self, data: bytes, _: tuple[str, int]) -> None:
        """Answer a request, or pass an answer to the waiting transaction."""
        if not status_of(data):
            ours = reply(data)
            if ours is not None:
                self._transport.sendto(ours)
        elif (call := _CALL_ID.search(data)) is not None and call[1] in self._answers:
            self._answers[call[1]].put_nowait(data)

    async def register(self) -> bool:
        """Register; return whether Asterisk accepted it."""
        answer, _ = await self._asked("REGISTER", self._call_id)
        return status_of(answer) == 200

    async def call(self) -> bool:
        """Call extension 100, and acknowledge the answer; return whether it was answered."""
        answer, request = await self._asked("INVITE", os.urandom(8).hex().encode())
        if status_of(answer) != 200:
            return False
        self._transport.sendto(_fresh(request).acknowledged(answer))
        return True

    async def _asked(self, method: str, call_id: bytes) -> tuple[bytes, Request]:
        """Send a request, and again with a digest; return the final answer and the last request."""
        host, port = self._transport.get_extra_info("sockname")
        self._sequence += 2
        contact = f"{host}:{port}"
        request = Request(
            *(method, self._account, PBX_IPV4, contact, "UDP", _branch(), call_id, self._sequence),
            extension="100",
        )
        self._answers[call_id] = asyncio.Queue()
        try:
            answer = await self._exchange(request, call_id, contact)
            challenge = challenge_of(answer)
            if challenge is not None:
                if method == "INVITE":
                    self._transport.sendto(request.acknowledged(answer))
                request = request.authorized(challenge, PASSWORD, _branch())
                answer = await self._exchange(request, call_id, contact)
        finally:
            del self._answers[call_id]
        return answer, request

    async def _exchange(self, request: Request, call_id: bytes, contact: str) -> bytes:
        """Send a request; return its final answer, empty if none comes."""
        encoded = request.encode()
        if request.method == "INVITE":
            host, _, port = contact.partition(":")
            body = _SDP.format(host=host, port=port).encode()
            head = encoded.removesuffix(_LENGTH) + b"Content-Type: application/sdp\r\n"
            encoded = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        self._transport.sendto(encoded)
        answers, branch = self._answers[call_id], request.branch.encode()
        try:
            async with asyncio.timeout(_WITHIN):
                while True:
                    answer = await answers.get()
                    if status_of(answer) >= 200 and branch in answer:
                        return answer
        except TimeoutError:
            return b""


def _branch() -> str:
    return f"z9hG4bK{os.urandom(6).hex()}"


def _fresh(request: Request) -> Request:
    """Return the request as the ACK of a 200 repeats it: as a transaction of its own."""
    return replace(request, branch=request.branch + "-ack")


class Company:
    """All phones and scanners."""

    def __init__(self, phones: int) -> None:
        self.done = Done()
        self._phones = [Phone(number) for number in range(phones)]
        self._running: set[asyncio.Task[None]] = set()

    async def run(self, calls: float, packets: float, seconds: float) -> None:
        """Register all phones, and then do everything for ``seconds``."""
        for phone in self._phones:
            await phone.start()
        order = iter(self._phones)
        await self._paced(_START, len(self._phones) / _START, lambda: self._register(next(order)))
        await asyncio.sleep(1.0)
        print("ready", flush=True)
        renewing, calling = _round(self._phones), _round(self._phones[::-1])
        scans = _scans(packets)
        async with asyncio.TaskGroup() as group:
            renewals = len(self._phones) / RENEW
            group.create_task(self._paced(renewals, seconds, lambda: self._register(next(renewing))))
            group.create_task(self._paced(calls, seconds, lambda: self._call(next(calling))))
            group.create_task(self._paced(packets, seconds, lambda: self._scan(*next(scans))))

    async def _paced(self, rate: float, seconds: float, start: Callable[[], object]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - loop.time()))
            start()
        if self._running:
            await asyncio.wait(self._running)

    def _register(self, phone: Phone) -> None:
        async def one() -> None:
            accepted = await phone.register()
            self.done.registered += accepted
            self.done.unregistered += not accepted

        self._begin(one())

    def _call(self, phone: Phone) -> None:
        async def one() -> None:
            answered = await phone.call()
            self.done.called += answered
            self.done.uncalled += not answered

        self._begin(one())

    def _begin(self, action: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(action)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _scan(self, address: str, message: bytes) -> None:
        async def one() -> None:
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=(address, 0), remote_addr=_TARGET
            )
            transport.sendto(message)
            await asyncio.sleep(1.0)  # the answer must find the port open
            transport.close()

        self.done.scanned += 1
        self._begin(one())


def _round(phones: list[Phone]) -> Iterator[Phone]:
    while True:
        yield from phones


def _scans(packets: float) -> Iterator[tuple[str, bytes]]:
    """Yield the senders and packets of the scanners."""
    number = 0
    while True:
        group = int(number / (packets * _SCAN))
        address = f"198.19.{10 + group}.{1 + number % SCANNERS}"
        method = ("OPTIONS", "REGISTER", "OPTIONS", "INVITE")[number // SCANNERS % 4]
        account = f"{1000 + number}"
        call_id = os.urandom(8).hex().encode()
        request = Request(
            *(method, account, PBX_IPV4, f"{address}:5060", "UDP", _branch(), call_id, 1), extension="100"
        )
        yield address, request.encode()
        number += 1


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.company", description="Phones of the lab.")
    parser.add_argument("--phones", type=int, default=500, help="the number of phones")
    parser.add_argument("--calls", type=float, default=10.0, help="calls a second")
    parser.add_argument("--packets", type=float, default=20.0, help="packets of scanners a second")
    parser.add_argument("--seconds", type=float, default=40.0, help="the time after all have registered")
    options = parser.parse_args()
    limited = options.calls <= MOST_A_SECOND and options.packets <= MOST_A_SECOND
    if not (options.phones <= MOST_PHONES and limited and options.seconds <= MOST_SECONDS):
        raise ValueError("that is more than this program may do")
    company = Company(options.phones)
    asyncio.run(company.run(options.calls, options.packets, options.seconds))
    print(json.dumps(asdict(company.done)))


if __name__ == "__main__":
    main()
