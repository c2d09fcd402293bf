"""An AMI server that plays recordings and can misbehave, for tests of faults and for the demo.

It implements the part of AMI that a listener needs: banner, login (plain and MD5 challenge), Ping, Events,
ListCommands, lists, Logoff. Then it sends its recordings, whole, packet by packet or in pieces of any
size, with pauses. ``lists`` maps an action to the entries of its list; by default there are no phones and no
trunks. ``answers`` adds answers to other actions. It listens on 127.0.0.1 only. To start it by hand:

    python -m tests.support.amiserver --port 5038 --pause 0.01 tests/captures/asterisk-22/*.ami
"""

import argparse
import asyncio
import contextlib
import enum
import hashlib
import random
import ssl
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from attrs import field, frozen
from tests.support.asterisk import SECRET
from tests.support.asterisk_files import MANAGER_PORT, MANAGER_USER

HOST = "127.0.0.1"
BANNER = b"Asterisk Call Manager/11.0.0\r\n"
BOOTED = (
    b"Event: FullyBooted\r\nPrivilege: system,all\r\n"
    b"Uptime: 1\r\nLastReload: 1\r\nStatus: Fully Booted\r\n\r\n"
)

NO_PHONES: Mapping[str, Sequence[bytes]] = {"DBGetTree": (), "PJSIPShowRegistrationsOutbound": ()}
"""The lists of an Asterisk with PJSIP, a user with write class reporting, no phone and no trunk."""

_CHALLENGE = "123456789"
_ANSWERS = {
    "ping": ("Ping: Pong", "Timestamp: 1700000000.000000"),
    "coresettings": ("CoreHTTPenabled: No",),
    "events": ("Events: On",),
}
_LONG_LINE = 100 * 2**20
_PIECE = 64 * 2**10
_MAX_REQUEST = 64 * 2**10


class Fault(enum.Enum):
    """How the server misbehaves."""

    CLOSES = "closes"  # closes at once, without a banner
    SILENT = "silent"  # accepts the connection and sends nothing
    REFUSES = "refuses"  # refuses every login
    DEAF = "deaf"  # accepts the login, then answers nothing, not even Ping
    GARBAGE = "garbage"  # sends 64 KiB of noise after the login
    LONG_LINE = "long-line"  # sends a line of 100 MiB after the login


@frozen
class Script:
    """The bytes that the server sends.

    ``play`` is sent after each login: in pieces of ``chunk`` bytes (0: packet by packet, -1: unchanged), with
    ``pause`` seconds after each. Then the connection stays open, unless ``hang_up`` is set.
    """

    play: Sequence[bytes] = ()
    chunk: int = -1
    pause: float = 0.0
    hang_up: bool = False
    fault: Fault | None = None
    secret: str = SECRET
    answers: Mapping[str, bytes] = field(factory=dict)
    lists: Mapping[str, Sequence[bytes]] = NO_PHONES
    """By action: the entries, each an event without its ActionID and its closing empty line."""
    booted: bool = True
    """Whether FullyBooted follows a login, as for a user with read class ``system``."""

    def pieces(self) -> Iterator[bytes]:
        """Yield the recordings in pieces of the requested size."""
        if self.chunk < 0:
            yield from self.play
            return
        whole = b"".join(self.play)
        if self.chunk == 0:
            yield from (packet for packet in _packets(whole) if packet)
            return
        for start in range(0, len(whole), self.chunk):
            yield whole[start : start + self.chunk]


class AmiServer:
    """An AMI server that runs while the context lasts: ``async with AmiServer(Script(...)) as server``."""

    def __init__(self, script: Script, port: int = 0, certificate: Path | None = None) -> None:
        self.script = script
        self.port = port
        self.actions: list[str] = []
        self.logins = 0
        self.connections = 0
        self._certificate = certificate
        self._server: asyncio.Server | None = None
        self._sessions: dict[asyncio.StreamWriter, asyncio.Task[object] | None] = {}
        self._listeners: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        context = None
        if self._certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate)
        self._server = await asyncio.start_server(
            self._serve, HOST, self.port, ssl=context, limit=_MAX_REQUEST
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
            await self.hang_up()
            await self._server.wait_closed()

    async def send(self, data: bytes) -> None:
        """Send ``data`` to every client that is logged in."""
        for writer in tuple(self._listeners):
            await _send(writer, data)

    async def hang_up(self) -> None:
        """Close every connection; the server continues to listen."""
        for writer in self._sessions:
            writer.transport.abort()
        if tasks := [task for task in self._sessions.values() if task is not None]:
            await asyncio.wait(tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._sessions[writer] = asyncio.current_task()
        try:
            await self._converse(reader, writer)
        except* (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client has gone, or the script has ended
        finally:
            self._listeners.discard(writer)
            del self._sessions[writer]
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.script.fault is Fault.CLOSES:
            return
        if self.script.fault is Fault.SILENT:
            await reader.read()
            return
        await _send(writer, BANNER)
        if not await self._log_in(reader, writer):
            return
        self._listeners.add(writer)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._answer_until_logoff(reader, writer))
            tasks.create_task(self._perform(writer))

    async def _log_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        while True:
            request = await self._request(reader)
            if request["action"].lower() == "challenge":
                await _send(writer, _answer(request, "Success", f"Challenge: {_CHALLENGE}"))
                continue
            if self.script.fault is Fault.REFUSES or not self._is_right(request):
                await _send(writer, _answer(request, "Error", "Message: Authentication failed"))
                return False
            self.logins += 1
            booted = BOOTED if self.script.booted else b""
            await _send(writer, _answer(request, "Success", "Message: Authentication accepted") + booted)
            return True

    def _is_right(self, request: Mapping[str, str]) -> bool:
        if request.get("username") != MANAGER_USER:
            return False
        if request.get("authtype", "").lower() == "md5":
            key = hashlib.md5((_CHALLENGE + self.script.secret).encode(), usedforsecurity=False)
            return request.get("key") == key.hexdigest()
        return request.get("secret") == self.script.secret

    async def _answer_until_logoff(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await self._request(reader)
            if self.script.fault is Fault.DEAF:
                continue
            name = request["action"]
            if name.lower() == "logoff":
                raise ConnectionAbortedError("logged off")
            await _send(writer, self._reply(name, request))

    def _reply(self, name: str, request: Mapping[str, str]) -> bytes:
        if name in self.script.answers:
            return self.script.answers[name].replace(b"{ActionID}", request.get("actionid", "").encode())
        if name in self.script.lists:
            return _listed(request, self.script.lists[name])
        if name == "ListCommands":
            granted = [*self.script.lists, *(["CoreStatus", "CoreSettings"] if self.script.lists else [])]
            return _answer(request, "Success", *(f"{one}: what it does  (Priv: x)" for one in granted))
        lines = _ANSWERS.get(name.lower(), ())
        if lines and (self.script.lists or name.lower() != "coresettings"):
            return _answer(request, "Success", *lines)
        return _answer(request, "Error", "Message: Invalid/unknown command")

    async def _perform(self, writer: asyncio.StreamWriter) -> None:
        if self.script.fault is Fault.GARBAGE:
            await _send(writer, random.Random(1).randbytes(_PIECE))  # noqa: S311 - the same noise each time
        if self.script.fault is Fault.LONG_LINE:
            for _ in range(_LONG_LINE // _PIECE):
                await _send(writer, b"x" * _PIECE)
        for piece in self.script.pieces():
            await _send(writer, piece)
            await asyncio.sleep(self.script.pause)
        if self.script.hang_up:
            raise ConnectionAbortedError("the script has ended")

    async def _request(self, reader: asyncio.StreamReader) -> dict[str, str]:
        raw = await reader.readuntil(b"\r\n\r\n")
        pairs = (line.partition(":") for line in raw.decode("utf-8", "replace").split("\r\n") if line)
        request = {name.strip().lower(): value.strip() for name, _, value in pairs}
        request.setdefault("action", "")
        self.actions.append(request["action"])
        return request


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


def _answer(request: Mapping[str, str], response: str, *lines: str) -> bytes:
    action_id = [f"ActionID: {request['actionid']}"] if "actionid" in request else []
    return "\r\n".join([f"Response: {response}", *action_id, *lines, "", ""]).encode()


def _listed(request: Mapping[str, str], entries: Sequence[bytes]) -> bytes:
    """Return a list as Asterisk sends it: the announcement, the entries, the completion."""
    mine = f"\r\nActionID: {request.get('actionid', '')}\r\n".encode()
    start = _answer(request, "Success", "EventList: start", "Message: Result will follow")
    complete = b"Event: ListComplete%sEventList: Complete\r\nListItems: %d\r\n\r\n" % (mine, len(entries))
    return start + b"".join(entry + mine + b"\r\n" for entry in entries) + complete


def _packets(whole: bytes) -> Iterator[bytes]:
    start = 0
    while (end := whole.find(b"\r\n\r\n", start)) >= 0:
        yield whole[start : end + 4]
        start = end + 4
    yield whole[start:]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.support.amiserver", description="AMI from a file.")
    parser.add_argument("recordings", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--port", type=int, default=MANAGER_PORT)
    parser.add_argument("--secret", default=SECRET)
    parser.add_argument("--chunk", type=int, default=0, help="bytes at a time; 0: packet by packet")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds after each piece")
    parser.add_argument("--fault", choices=[fault.value for fault in Fault])
    parser.add_argument("--certificate", type=Path, help="speak TLS with this certificate and key")
    return parser.parse_args()


async def _main(options: argparse.Namespace) -> None:
    script = Script(
        play=[path.read_bytes() for path in options.recordings],
        chunk=options.chunk,
        pause=options.pause,
        fault=Fault(options.fault) if options.fault else None,
        secret=options.secret,
    )
    async with AmiServer(script, options.port, options.certificate) as server:
        print(f"listening on {HOST}:{server.port}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(_options()))
