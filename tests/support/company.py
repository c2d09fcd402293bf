"""The phones of a company and some scanners, in the attacker's namespace; prints a line of JSON.

    ip netns exec NS python -m tests.support.company --phones 500 --calls 10 --packets 20 --seconds 40

The phones register, ten of them at each address. Then each renews its registration every minute, and calls
are made. Scanners of other addresses send OPTIONS, and REGISTER and INVITE for accounts that do not exist,
without a digest. Every 20 s other addresses do so.

First the calls go to extension 100: Asterisk answers, and hangs up after a second. Then they go to extension
200: for ``TALK`` seconds the phone sends 50 packets of RTP (G.711) a second, and Asterisk sends each back.
The phones do not read the media that comes back: the kernel drops it at their small buffers.

The line "ready" is printed when each of the two periods begins: once the phones have registered, and once
calls with media are in progress at their full number. A line of JSON follows each period. All sockets belong
to one process and one thread. The numbers are limited. It sends only within the laboratory's networks.
"""

import argparse
import asyncio
import json
import os
import re
import socket
import struct
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.support.asterisk_files import PASSWORD, pjsip_account
from tests.support.network import PBX_IPV4
from tests.support.phones import reply
from tests.support.sip_wire import Request, challenge_of, status_of

MOST_PHONES = 1_000
MOST_SECONDS = 120.0
MOST_A_SECOND = 100.0
RENEW = 60.0
"""Seconds from one registration of a phone to the next."""
TALK = 10
"""Seconds of a call with media."""
AT_EACH = 10
SCANNERS = 10
"""The number of addresses that scan at a time."""
_SCAN = 20.0  # seconds from the first packet of a scanner to its last one
_START = 50.0  # registrations a second in the beginning
_PACKET = 0.02  # seconds of sound in a packet of RTP
_SOUND = b"\xff" * 160  # silence in G.711 µ-law, 8000 bytes a second
_WITHIN = 10.0  # seconds after which a registration or call has failed
_REPEAT, _REPEAT_LATER = 0.5, 4.0
"""Seconds until an unanswered request is repeated, and the most until it is again (RFC 3261: T1, T2)."""
_TARGET = (PBX_IPV4, 5060)
_SDP = (
    "v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
    "m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
)
_LENGTH = b"Content-Length: 0\r\n\r\n"
_CALL_ID = re.compile(rb"\r\n(?:Call-ID|i):[ \t]*([^\r]*)", re.IGNORECASE)
_EXTENSIONS = (
    "[phones]\nexten => 100,1,Answer()\n same => n,Wait(1)\n same => n,Hangup()\n"
    f"exten => 200,1,Set(TIMEOUT(absolute)={TALK})\n same => n,Answer()\n same => n,Echo()\n"
)
_SOUND_PORT = re.compile(rb"\r\nm=audio ([0-9]{1,5}) ")


@dataclass
class Done:
    """Counts of successes and failures: registrations, calls, packets of scanners, and media.

    ``spoken`` are the packets of RTP that were sent. ``received`` are all packets that reached the phones and
    scanners from the time "ready" on: without media the answers, with it mostly sound.
    """

    registered: int = 0
    unregistered: int = 0
    called: int = 0
    uncalled: int = 0
    scanned: int = 0
    spoken: int = 0
    received: int = 0


def configured(phones: int) -> dict[str, str]:
    """Return the configuration of Asterisk for this number of phones."""
    endpoint, aor = "rewrite_contact = yes\ndirect_media = no\n", "max_contacts = 1\nqualify_frequency = 60\n"
    accounts = (pjsip_account(f"desk{number}", endpoint=endpoint, aor=aor) for number in range(phones))
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
        return await self._answered("100", 9) is not None

    async def talk(self) -> int | None:
        """Call extension 200, and send sound; return the number of packets, None if it was not answered."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sound:
            sound.settimeout(0)
            sound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            sound.bind((self.address, 0))
            answer = await self._answered("200", sound.getsockname()[1])
            port = _SOUND_PORT.search(answer) if answer is not None else None
            if port is None:
                return None
            sound.connect((PBX_IPV4, int(port[1])))
            return await _speak(sound)

    async def _answered(self, extension: str, port: int) -> bytes | None:
        """Call an extension with sound at ``port``, acknowledge the answer, and return it."""
        answer, request = await self._asked("INVITE", os.urandom(8).hex().encode(), extension, port)
        if status_of(answer) != 200:
            return None
        self._transport.sendto(_fresh(request).acknowledged(answer))
        return answer

    async def _asked(
        self, method: str, call_id: bytes, extension: str = "100", sound: int = 9
    ) -> tuple[bytes, Request]:
        """Send a request, and again with a digest; return the final answer and the last request."""
        host, port = self._transport.get_extra_info("sockname")
        self._sequence += 2
        contact = f"{host}:{port}"
        request = Request(
            *(method, self._account, PBX_IPV4, contact, "UDP", _branch(), call_id, self._sequence),
            extension=extension,
        )
        self._answers[call_id] = asyncio.Queue()
        try:
            answer = await self._exchange(request, call_id, sound)
            challenge = challenge_of(answer)
            if challenge is not None:
                if method == "INVITE":
                    self._transport.sendto(request.acknowledged(answer))
                request = request.authorized(challenge, PASSWORD, _branch())
                answer = await self._exchange(request, call_id, sound)
        finally:
            del self._answers[call_id]
        return answer, request

    async def _exchange(self, request: Request, call_id: bytes, sound: int) -> bytes:
        """Send a request, and repeat it until an answer comes; return the final answer, empty if none."""
        encoded = request.encode()
        if request.method == "INVITE":
            body = _SDP.format(host=self.address, port=sound).encode()
            head = encoded.removesuffix(_LENGTH) + b"Content-Type: application/sdp\r\n"
            encoded = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        self._transport.sendto(encoded)
        answers, branch = self._answers[call_id], request.branch.encode()
        repeat: float | None = _REPEAT
        try:
            async with asyncio.timeout(_WITHIN):
                while True:
                    try:
                        async with asyncio.timeout(repeat):
                            answer = await answers.get()
                    except TimeoutError:
                        self._transport.sendto(encoded)
                        repeat = min(2 * (repeat or 0.0), _REPEAT_LATER)
                        continue
                    if branch in answer:
                        repeat = None
                        if status_of(answer) >= 200:
                            return answer
        except TimeoutError:
            return b""


async def _speak(sound: socket.socket) -> int:
    """Send the packets of one call; return their number."""
    loop, source = asyncio.get_running_loop(), os.urandom(4)
    began = loop.time()
    number = 0
    while number * _PACKET < TALK:
        head = struct.pack(">BBHI", 0x80, 0, number, number * len(_SOUND))  # RFC 3550: version 2, PCMU
        try:
            sound.send(head + source + _SOUND)
        except ConnectionRefusedError:  # Asterisk has hung up
            break
        number += 1
        await asyncio.sleep(max(0.0, began + number * _PACKET - loop.time()))
    return number


def _received() -> int:
    """Return the number of packets that this network namespace has received."""
    lines = Path("/proc/self/net/dev").read_text("ascii").split("\n")[2:]
    devices = (line.partition(":") for line in lines if line)
    return sum(int(fields.split()[1]) for name, _, fields in devices if name.strip() != "lo")


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
        if self.done.unregistered:
            raise SystemExit(f"{self.done.unregistered} of {len(self._phones)} phones could not register")
        await asyncio.sleep(1.0)
        for call, before in (self._call, 0.0), (self._talk, 2.0 + TALK):
            self.done = Done()
            await self._period(calls, packets, seconds, call, before)
            print(json.dumps(asdict(self.done)), flush=True)

    async def _period(
        self, calls: float, packets: float, seconds: float, call: Callable[[Phone], None], before: float
    ) -> None:
        """Do everything for ``seconds``, after the calls have begun ``before`` seconds earlier."""
        renewing, calling = _round(self._phones), _round(self._phones[::-1])
        scans = _scans(packets)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._paced(calls, before + seconds, lambda: call(next(calling))))
            await asyncio.sleep(before)
            print("ready", flush=True)
            received = _received()
            renewals = len(self._phones) / RENEW
            group.create_task(self._paced(renewals, seconds, lambda: self._register(next(renewing))))
            group.create_task(self._paced(packets, seconds, lambda: self._scan(*next(scans))))
            await asyncio.sleep(seconds)
            self.done.received = _received() - received

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

    def _talk(self, phone: Phone) -> None:
        async def one() -> None:
            spoken = await phone.talk()
            self.done.called += spoken is not None
            self.done.uncalled += spoken is None
            self.done.spoken += spoken or 0

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
    parser.add_argument("--seconds", type=float, default=40.0, help="the time of each period")
    options = parser.parse_args()
    limited = options.calls <= MOST_A_SECOND and options.packets <= MOST_A_SECOND
    if not (options.phones <= MOST_PHONES and limited and options.seconds <= MOST_SECONDS):
        raise ValueError("that is more than this program may do")
    asyncio.run(Company(options.phones).run(options.calls, options.packets, options.seconds))


if __name__ == "__main__":
    main()
