"""The control socket, over real unix sockets: its permissions, its answers, and clients that misbehave."""

import asyncio
import errno
import json
import os
import resource
import select
import signal
import socket
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ringfence import control, control_server
from ringfence.control import MAX_REQUEST, ask, ask_encoded, follow
from ringfence.control_server import MAX_REQUEST_OF_OTHERS, Encoded, Handler, Stream, encoded_rows, serve
from ringfence.errors import (
    ControlError,
    DaemonUnreachableError,
    FirewallError,
    HangingError,
    NoAccessError,
    NoAnswerError,
)

LONGEST = MAX_REQUEST_OF_OTHERS if os.geteuid() else MAX_REQUEST
UNKNOWN = {"error": "the daemon does not know this request; is the command of the same version?"}


def refuse(_: Mapping[str, Any]) -> object:
    """Refuse, as an enforcer does."""
    raise ControlError("switched off")


def fail(_: Mapping[str, Any]) -> object:
    """Fail, as a firewall does."""
    raise FirewallError("no answer")


def defect(_: Mapping[str, Any]) -> object:
    """Raise an error that no handler should raise."""
    raise KeyError("secret detail")


def broken() -> Iterator[object]:
    """Yield a row, then fail as a database does."""
    yield 1
    raise FirewallError("no answer")


HANDLERS: Mapping[str, Handler] = {
    "echo": dict,
    "refuse": refuse,
    "fail": fail,
    "defect": defect,
    "nan": lambda _: {1, 2},
    "parts": lambda _: Encoded([b"[1", b", 2", b', {"a": "}"}]']),
    "rows": lambda _: encoded_rows({"at": at} for at in range(2)),
    "many": lambda _: Encoded([b"[", *[b" " * 1_000_000] * 20, b"]"]),
    "broken": lambda _: encoded_rows(one for one in broken()),
}


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    """Return the path of the socket."""
    return tmp_path / "control.sock"


@asynccontextmanager
async def client(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect as a command does."""
    reader, writer = await asyncio.open_unix_connection(path, limit=2 * MAX_REQUEST)
    try:
        yield reader, writer
    finally:
        writer.close()


async def exchange(path: Path, *lines: bytes) -> list[Any]:
    """Send lines over one connection, and return the answers."""
    async with asyncio.timeout(10), client(path) as (reader, writer):
        answers = []
        for line in lines:
            writer.write(line + b"\n")
            answers.append(json.loads(await reader.readline()))
        return answers


def served(path: Path, *lines: bytes) -> list[Any]:
    """Serve, send lines, and return the answers."""

    async def main() -> list[Any]:
        async with serve(path, HANDLERS):
            return await exchange(path, *lines)

    return asyncio.run(main())


@contextmanager
def served_by(path: Path, serve_one: Callable[[socket.socket], object]) -> Iterator[None]:
    """Serve the only connection of a daemon in a thread while the block runs."""
    path.unlink(missing_ok=True)
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(path))
        server.listen()

        def accept() -> None:
            connection, _ = server.accept()
            with connection:
                serve_one(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield
        finally:
            thread.join(10)


def asked(path: Path, question: Callable[[], object]) -> object:
    """Serve in a thread while ``question`` runs, and return its result."""
    up, over = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        async with serve(path, HANDLERS):
            loops.append(asyncio.get_running_loop())
            up.set()
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert up.wait(10)
        return question()
    finally:
        loops[0].call_soon_threadsafe(over.set)
        thread.join(10)


# -- permissions ------------------------------------------------------------------------------------------


def test_the_socket_is_for_owner_and_group(path: Path) -> None:
    """The socket has mode 0660, the process keeps its umask, and the socket is removed at the end."""
    before = os.umask(0o022)
    os.umask(before)

    modes: list[int] = []

    async def main() -> None:
        async with serve(path, {"look": lambda _: modes.append(path.stat().st_mode)}):
            await exchange(path, b'{"do": "look"}')

    asyncio.run(main())
    assert [stat.S_IMODE(mode) for mode in modes] == [0o660]
    assert os.umask(before) == before
    assert not path.exists()


def test_the_socket_of_a_dead_daemon_is_replaced(path: Path) -> None:
    """A socket on which no process listens is replaced."""
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(path))

    assert served(path, b'{"do": "echo", "a": 1}') == [{"ok": {"a": 1}}]


def test_the_socket_of_a_living_daemon_stays(path: Path) -> None:
    """If another daemon answers there, the second refuses to start, and the first continues."""

    async def main() -> list[Any]:
        async with serve(path, HANDLERS):
            with pytest.raises(ControlError, match="another daemon answers at"):
                async with serve(path, {}):
                    pass
            return await exchange(path, b'{"do": "echo"}')

    assert asyncio.run(main()) == [{"ok": {}}]


@pytest.mark.parametrize("what", ["absent folder", "a file", "a folder", "too long"])
def test_a_path_where_no_socket_can_be(tmp_path: Path, what: str) -> None:
    """The message names the path and the key; a file that is not a socket is never removed."""
    path = {
        "absent folder": tmp_path / "absent" / "control.sock",
        "a file": tmp_path / "file",
        "a folder": tmp_path,
        "too long": tmp_path / ("x" * 120),
    }[what]
    (tmp_path / "file").write_text("precious", "utf-8")

    async def main() -> None:
        async with serve(path, {}):
            pass

    with pytest.raises(ControlError, match=r"see \[control\] socket"):
        asyncio.run(main())
    assert (tmp_path / "file").read_text("utf-8") == "precious"


def test_a_removed_socket_does_not_fail_the_shutdown(path: Path) -> None:
    """If another program removed the socket's file, the daemon still ends in order."""

    async def main() -> None:
        async with serve(path, {"clear": lambda _: path.unlink()}):
            await exchange(path, b'{"do": "clear"}')

    asyncio.run(main())


# -- answers ----------------------------------------------------------------------------------------------


def test_one_connection_carries_many_requests(path: Path) -> None:
    """Each line is answered by one line, in order, with the handler's result."""
    lines = [b'{"do": "echo", "n": %d, "text": "\\u00e9\\n"}' % n for n in range(5)]

    assert served(path, *lines) == [{"ok": {"n": n, "text": "é\n"}} for n in range(5)]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[],{}:" * 10_000,
        b"hello",
        b"[]",
        b"null",
        b"1",
        b'"echo"',
        b"{}",
        b'{"do": "dance"}',
        b'{"do": []}',
        b'{"do": null}',
        b'{"do": "echo"',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_an_invalid_request_is_answered(path: Path, line: bytes) -> None:
    """Bad JSON, another shape or an unknown command gets an error, and the next request is served."""
    assert served(path, line, b'{"do": "echo"}') == [UNKNOWN, {"ok": {}}]


def test_an_error_is_the_answer(path: Path) -> None:
    """The answer to a request that raises a RingfenceError is the error's text."""
    assert served(path, b'{"do": "refuse"}', b'{"do": "fail"}') == [
        {"error": "switched off"},
        {"error": "no answer"},
    ]


def test_a_defect_is_reported_and_logged_in_full(path: Path) -> None:
    """The answer to an unexpected exception has no details, the log has them, and the daemon continues."""
    with capture_logs() as logs:
        answers = served(path, b'{"do": "defect"}', b'{"do": "echo"}')

    assert answers == [{"error": "a defect in ringfence (KeyError); see the daemon's log"}, {"ok": {}}]
    assert [(entry["event"], entry["exc_info"]) for entry in logs] == [("control.defect", True)]


def test_a_result_that_is_not_json_is_a_defect(path: Path) -> None:
    """A result that JSON cannot represent is reported as a defect of the handler."""
    with capture_logs() as logs:
        answers = served(path, b'{"do": "nan"}', b'{"do": "echo"}')

    assert answers == [{"error": "a defect in ringfence (TypeError); see the daemon's log"}, {"ok": {}}]
    assert [entry["event"] for entry in logs] == ["control.defect"]


def test_a_line_too_long_ends_that_connection_only(path: Path) -> None:
    """A client whose line is too long gets the reason and is disconnected; others are served."""

    async def main() -> list[Any]:
        async with asyncio.timeout(10), serve(path, HANDLERS):
            with pytest.raises(ControlError, match=f"longer than {LONGEST} bytes; send fewer values"):
                await asyncio.to_thread(ask, path, "echo", text="x" * LONGEST)
            return await exchange(path, b'{"do": "echo"}')

    assert asyncio.run(main()) == [{"ok": {}}]


def test_a_long_request_is_served(path: Path) -> None:
    """A request of the greatest length is served, and its answer is as long."""
    text = "x" * (LONGEST - 100)

    assert served(path, json.dumps({"do": "echo", "text": text}).encode()) == [{"ok": {"text": text}}]


def test_a_client_that_disconnects_stops_nothing(path: Path) -> None:
    """A client may disconnect in the middle of a request or before the answer; the daemon continues."""

    async def main() -> list[Any]:
        async with serve(path, HANDLERS):
            for part in (b"", b'{"do": "ec', b'{"do": "echo"}\n' * 1_000):
                async with client(path) as (_, writer):
                    writer.write(part)
                    writer.transport.abort()
            return await exchange(path, b'{"do": "echo"}')

    with capture_logs() as logs:
        assert asyncio.run(main()) == [{"ok": {}}]
    assert logs == []


def test_a_connection_that_the_kernel_fails_ends_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If the kernel has no memory to read a request, that connection ends without a traceback."""
    with monkeypatch.context() as patch:

        async def refused(_: asyncio.StreamReader, __: int) -> bytes:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")

        patch.setattr(asyncio.StreamReader, "read", refused)

        async def main() -> bytes:
            async with asyncio.timeout(10), serve(path, HANDLERS), client(path) as (reader, writer):
                writer.write(b'{"do": "echo"}\n')
                with suppress(ConnectionError):
                    return await reader.readline()
                return b""

        assert asyncio.run(main()) == b""

    assert served(path, b'{"do": "echo"}') == [{"ok": {}}]
    assert caplog.records == []


def test_an_idle_client_is_disconnected(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the idle time without a request the connection is closed."""
    monkeypatch.setattr(control_server, "IDLE_TIMEOUT", 0.05)

    async def main() -> bytes:
        async with asyncio.timeout(10), serve(path, HANDLERS), client(path) as (reader, _):
            return await reader.read()

    assert asyncio.run(main()) == b""


def test_a_client_that_does_not_read_is_disconnected(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a client does not read its answer, the rest of the answer is dropped after the idle time."""
    monkeypatch.setattr(control_server, "IDLE_TIMEOUT", 0.05)

    async def main() -> int:
        with closing(socket.socket(socket.AF_UNIX)) as mute:
            async with asyncio.timeout(60), serve(path, HANDLERS):
                mute.connect(str(path))
                mute.sendall(b'{"do": "many"}\n')
                ended = select.poll()
                ended.register(mute, select.POLLHUP)
                while not ended.poll(0):  # noqa: ASYNC110 - until the daemon has hung up
                    await asyncio.sleep(0.01)
            size = 0
            with suppress(ConnectionError):
                while part := mute.recv(1 << 20):
                    size += len(part)
            return size

    assert asyncio.run(main()) < 20_000_000


def test_the_shutdown_waits_for_no_client(path: Path) -> None:
    """A client that stays connected is disconnected when the daemon ends."""

    async def main() -> tuple[bytes, float]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(60):
            async with serve(path, HANDLERS):
                reader, writer = await asyncio.open_unix_connection(path)
                writer.write(b'{"do": "echo"}\n')
                await reader.readline()
                before = loop.time()
            try:
                rest = await reader.read()
            except ConnectionError:
                rest = b""
            writer.close()
            return rest, loop.time() - before

    rest, took = asyncio.run(main())
    assert rest == b""
    assert took < 50


# -- the command's side -----------------------------------------------------------------------------------


def test_a_command_gets_its_answer(path: Path) -> None:
    """ask() returns the handler's result."""
    answer = asked(path, lambda: ask(path, "echo", networks=["192.0.2.1"], seconds=1.5))

    assert answer == {"networks": ["192.0.2.1"], "seconds": 1.5}


@pytest.mark.parametrize(
    ("do", "text"),
    [
        ("refuse", "^switched off$"),
        ("dance", "the daemon does not know this request"),
        ("defect", "a defect"),
    ],
)
def test_a_refused_command(path: Path, do: str, text: str) -> None:
    """ask() raises ControlError with the daemon's text."""
    with pytest.raises(ControlError, match=text) as caught, capture_logs():
        asked(path, lambda: ask(path, do))

    assert not isinstance(caught.value, DaemonUnreachableError)


def test_no_daemon(path: Path) -> None:
    """If the socket is absent or dead, or if its folder is no folder, the message has the fix."""
    with pytest.raises(DaemonUnreachableError, match=r"no daemon listens at .*systemctl start ringfence"):
        ask(path, "echo")
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(path))
    with pytest.raises(DaemonUnreachableError, match="no daemon listens at"):
        ask(path, "echo")
    with pytest.raises(DaemonUnreachableError, match="no daemon listens at"):
        ask(path / "control.sock", "echo")


def test_a_command_without_a_free_descriptor(path: Path) -> None:
    """A command that has no descriptor left does not take the daemon for absent."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(NoAccessError, match=r"cannot connect to the daemon at .*Too many open files"):
            ask(path, "echo")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_socket_without_permission(path: Path) -> None:
    """Without permission to connect, the message has the fix."""
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(path))
        server.listen()
        path.chmod(0)
        before = os.geteuid()
        if before == 0:
            os.seteuid(65_534)
        try:
            with pytest.raises(
                DaemonUnreachableError, match="Permission denied; fix: be root, or in the daemon"
            ):
                ask(path, "echo")
        finally:
            os.seteuid(before)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "answer is incomplete"),
        (b'{"ok": ', "answer is incomplete"),
        (b"hello\n", "is not valid"),
        (b"[]\n", "is not valid"),
        (b"[" * 100_000 + b"\n", "is not valid"),
        (b"{}\n", "is not valid"),
    ],
)
def test_an_incomplete_or_invalid_answer(path: Path, answer: bytes, text: str) -> None:
    """An answer that is incomplete or not JSON means that the daemon is unreachable."""

    def serve_one(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(answer)

    with served_by(path, serve_one), pytest.raises(DaemonUnreachableError, match=text):
        ask(path, "echo")


def test_a_daemon_that_hangs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the process that hangs; a request that it has not read is never carried out."""
    monkeypatch.setattr(control, "SILENCE", 0.05)
    monkeypatch.setattr(control, "_time_used", lambda _: "")
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(HangingError) as hangs:
            ask(path, "echo")

        assert f"(process {os.getpid()}) hangs" in str(hangs.value)
        assert "This request will not be carried out." in str(hangs.value)


def test_a_daemon_that_hangs_in_a_request(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the daemon has read the request, the error states that it may still be carried out."""
    monkeypatch.setattr(control, "_time_used", lambda _: "")
    monkeypatch.setattr(control, "SILENCE", 1.0)  # longer than a thread needs to read
    ended = threading.Event()

    def read_only(connection: socket.socket) -> None:
        connection.recv(4096)
        ended.wait(60)

    with served_by(path, read_only):
        with pytest.raises(HangingError, match=r"may still be carried out when the daemon goes on\.$"):
            ask(path, "echo")
        ended.set()


def test_a_full_queue_of_connections_is_a_daemon_that_hangs(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the daemon does not even accept connections, the request is not sent."""
    monkeypatch.setattr(control, "SILENCE", 0.05)
    with closing(socket.socket(socket.AF_UNIX)) as server, closing(socket.socket(socket.AF_UNIX)) as waiting:
        server.bind(str(path))
        server.listen(0)
        waiting.connect(str(path))
        with pytest.raises(HangingError, match="This request was not sent"):
            ask(path, "echo")


def test_a_daemon_that_works_for_long(path: Path) -> None:
    """Blanks before the answer show that the daemon works. A command waits for it, up to its own limit."""

    def answer_late(connection: socket.socket) -> None:
        connection.recv(4096)
        for part in (b" ", b"  ", b' {"ok": [1, ', b" 2]}\n"):
            connection.sendall(part)

    def work_on(connection: socket.socket) -> None:
        connection.recv(4096)
        with suppress(OSError):
            while True:
                connection.sendall(b" ")

    with served_by(path, answer_late):
        assert ask_encoded(path, "echo") == b"[1,  2]"
    with served_by(path, work_on), pytest.raises(NoAnswerError, match=r"not answered within 0\.2 s"):
        ask(path, "echo", timeout=0.2)


def test_a_daemon_that_works_in_silence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that uses the processor works, although its event loop cannot send blanks meanwhile."""
    monkeypatch.setattr(control, "SILENCE", 0.01)
    used = iter(map(str, range(10_000)))
    silences = threading.Semaphore(0)

    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        silences.acquire(timeout=60)
        connection.sendall(b'{"ok": 1}\n')

    def used_time(process: int) -> str:
        assert process == os.getpid()
        silences.release()
        return next(used)

    monkeypatch.setattr(control, "_time_used", used_time)
    with served_by(path, answer):
        assert ask(path, "echo") == 1


def test_the_daemon_shows_that_it_works(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a request runs, its client gets blanks."""
    monkeypatch.setattr(control_server, "SIGN_EVERY", 0.01)
    seen = asyncio.Event()

    async def wait(_: Mapping[str, Any]) -> object:
        await seen.wait()
        return "done"

    async def main() -> tuple[bytes, bytes]:
        async with serve(path, {"wait": wait}), client(path) as (reader, writer):
            writer.write(b'{"do": "wait"}\n')
            blanks = await reader.readexactly(2)
            seen.set()
            return blanks, await reader.readline()

    blanks, answer = asyncio.run(main())
    assert blanks == b"  "
    assert json.loads(answer) == {"ok": "done"}


def test_a_request_that_was_given_up_is_not_carried_out(path: Path) -> None:
    """A request does not begin if its client has closed the connection. A client may stop to send."""
    done = []

    async def main() -> bytes:
        async with serve(path, {"note": lambda request: done.append(request["who"])}):
            with (
                closing(socket.socket(socket.AF_UNIX)) as gone,
                closing(socket.socket(socket.AF_UNIX)) as waits,
            ):
                for one, who in (
                    (gone, "gone"),
                    (waits, "waits"),
                ):  # meanwhile the daemon's loop does not run
                    one.connect(str(path))
                    one.sendall(json.dumps({"do": "note", "who": who}).encode() + b"\n")
                gone.close()
                waits.shutdown(socket.SHUT_WR)
                return await asyncio.to_thread(waits.recv, 4096)

    assert json.loads(asyncio.run(main())) == {"ok": None}
    assert done == ["waits"]


def test_a_hanging_daemon_keeps_its_socket(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that is too busy to accept a connection is not dead: its socket stays."""
    monkeypatch.setattr(control, "SILENCE", 0.05)

    async def main() -> None:
        async with serve(path, {}):
            pass

    with closing(socket.socket(socket.AF_UNIX)) as server, closing(socket.socket(socket.AF_UNIX)) as waiting:
        server.bind(str(path))
        server.listen(0)
        waiting.connect(str(path))
        with pytest.raises(ControlError):
            asyncio.run(main())
        assert path.is_socket()


# -- encoded results --------------------------------------------------------------------------------------


def test_an_encoded_result_is_passed_on(path: Path) -> None:
    """An encoded result is sent in parts like any other; a command may read it as JSON or as bytes."""
    parsed: object = [1, 2, {"a": "}"}]
    assert served(path, b'{"do": "parts"}', b'{"do": "echo"}') == [{"ok": parsed}, {"ok": {}}]

    assert asked(path, lambda: ask(path, "parts")) == parsed
    assert asked(path, lambda: ask_encoded(path, "parts")) == b'[1, 2, {"a": "}"}]'
    assert asked(path, lambda: ask(path, "rows")) == [{"at": 0}, {"at": 1}]


def test_a_plain_result_is_encoded_on_request(path: Path) -> None:
    """ask_encoded() returns JSON for any result, and raises the daemon's refusals."""
    assert json.loads(asked(path, lambda: ask_encoded(path, "echo", a=1))) == {"a": 1}  # type: ignore[arg-type]
    with pytest.raises(ControlError, match="switched off"):
        asked(path, lambda: ask_encoded(path, "refuse"))


def test_a_list_of_many_megabytes_arrives_whole(path: Path) -> None:
    """An answer of twenty megabytes arrives complete, and the connection then serves the next request."""
    answer = asked(path, lambda: ask_encoded(path, "many"))

    assert isinstance(answer, bytes)
    assert (len(answer), answer.strip(b" ")) == (20_000_002, b"[" + b" " * 20_000_000 + b"]")


def test_a_fast_reader_does_not_block_others(path: Path) -> None:
    """Between the parts of a long answer other tasks run, also if the client reads each part at once."""
    turns = 0
    seen: list[int] = []

    class Part(bytes):
        def __getitem__(self, key: Any) -> Any:  # noqa: ANN401 - as in bytes
            seen.append(turns)
            return super().__getitem__(key)

    async def others() -> None:
        nonlocal turns
        while len(seen) < 20:
            turns += 1
            await asyncio.sleep(0)

    async def main() -> None:
        handlers: dict[str, control_server.Handler] = {"many": lambda _: Encoded([Part(b" ")] * 20)}
        async with serve(path, handlers), client(path) as (_, writer), asyncio.TaskGroup() as group:
            group.create_task(others())
            writer.write(b'{"do": "many"}\n')

    asyncio.run(main())
    assert len(set(seen)) == 20


def test_a_slow_reader_does_not_block_others(path: Path) -> None:
    """While a client does not read a long answer, others are answered."""

    async def main() -> list[Any]:
        async with serve(path, HANDLERS), client(path) as (_, writer):
            writer.write(b'{"do": "many"}\n')
            await writer.drain()
            return await exchange(path, b'{"do": "echo", "a": 1}')

    assert asyncio.run(main()) == [{"ok": {"a": 1}}]


# -- streams ----------------------------------------------------------------------------------------------


class Numbers:
    """A stream of numbers; ``all_sent`` is set after the last one, ``ended`` when its client has gone."""

    def __init__(self, most: int, size: int = 0) -> None:
        self.ended = asyncio.Event()
        self.all_sent = asyncio.Event()
        self.sent = 0
        self._most = most
        self._size = size

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield a line for each number, then wait."""
        try:
            for number in range(self._most):
                self.sent = number
                yield json.dumps({"number": number, "text": "x" * self._size}).encode() + b"\n"
            self.all_sent.set()
            await asyncio.Event().wait()
        finally:
            self.ended.set()


def test_a_stream_ends_with_its_client(path: Path) -> None:
    """The first line is the answer, then lines follow; the stream ends when the client disconnects."""

    async def main() -> list[Any]:
        numbers = Numbers(2)
        async with asyncio.timeout(10), serve(path, {"follow": lambda _: Stream(numbers.lines())}):
            async with client(path) as (reader, writer):
                writer.write(b'{"do": "follow"}\n')
                found = [json.loads(await reader.readline()) for _ in range(3)]
            await numbers.ended.wait()
        return found

    found = asyncio.run(main())
    assert found[0] == {"ok": True}
    assert [one["number"] for one in found[1:]] == [0, 1]


def test_a_client_that_does_not_read_a_stream_stops_only_itself(path: Path) -> None:
    """The stream waits for it, others are answered, and its end is noticed."""

    async def main() -> tuple[list[Any], int]:
        numbers = Numbers(10_000, 10_000)
        handlers = {**HANDLERS, "follow": lambda _: Stream(numbers.lines())}
        async with asyncio.timeout(20), serve(path, handlers):
            with closing(socket.socket(socket.AF_UNIX)) as mute:
                mute.connect(str(path))
                mute.sendall(b'{"do": "follow"}\n')
                await asyncio.sleep(0.3)
                answers = await exchange(path, b'{"do": "echo", "a": 1}')
            await numbers.ended.wait()
        return answers, numbers.sent

    answers, sent = asyncio.run(main())
    assert answers == [{"ok": {"a": 1}}]
    assert sent < 1_000


def test_a_command_follows_until_the_daemon_ends(path: Path) -> None:
    """``follow`` yields the lines, and raises when the daemon has ended or refuses."""

    async def main() -> list[Any]:
        numbers, found = Numbers(2), list[Any]()

        def read() -> None:
            with pytest.raises(DaemonUnreachableError, match="has ended"):
                found.extend(follow(path, "follow"))

        handlers = {**HANDLERS, "follow": lambda _: Stream(numbers.lines())}
        async with asyncio.timeout(20), asyncio.TaskGroup() as group, serve(path, handlers):
            group.create_task(asyncio.to_thread(read))
            await numbers.all_sent.wait()
            with pytest.raises(ControlError, match="switched off"):
                await asyncio.to_thread(list, follow(path, "refuse"))
            await asyncio.sleep(0.1)
        return found

    asyncio.run(main())


def test_ctrl_c_ends_a_command_that_follows(path: Path) -> None:
    """It ends the command also if it comes just before a read, which then begins nevertheless."""
    ended = threading.Event()

    def serve_silence(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b'{"ok": true}\n{"number": 1}\n')
            ended.wait(10)

    # The kernel begins the read again after the signal, as if the signal had come before.
    signal.siginterrupt(signal.SIGINT, False)  # noqa: FBT003 - positional only
    try:
        with closing(socket.socket(socket.AF_UNIX)) as listener:
            listener.bind(str(path))
            listener.listen()
            thread = threading.Thread(target=serve_silence, args=(listener,))
            thread.start()
            lines = follow(path, "follow")
            assert next(lines) == {"number": 1}
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            with pytest.raises(KeyboardInterrupt):
                next(lines)
            assert thread.is_alive()
            ended.set()
            thread.join()
    finally:
        signal.siginterrupt(signal.SIGINT, True)  # noqa: FBT003 - positional only


def test_half_a_line_is_the_end_of_the_daemon(path: Path) -> None:
    """A daemon that is killed may leave half a line, which is not shown."""
    found: list[Any] = []

    def serve_half(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1_000)
            connection.sendall(b'{"ok": true}\n{"number": 1}\n{"num')

    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve_half, args=(listener,))
        thread.start()
        with pytest.raises(DaemonUnreachableError, match="has ended"):
            found.extend(follow(path, "follow"))
        thread.join()

    assert found == [{"number": 1}]


def test_a_handler_knows_the_user_of_its_client(path: Path) -> None:
    """The kernel's word counts, not that of the client."""

    async def main() -> list[Any]:
        async with serve(path, {"who": lambda _: str(control_server.PEER.get())}):
            return await exchange(path, b'{"do": "who", "user": 7}')

    assert asyncio.run(main()) == [{"ok": str(control_server.Peer(os.geteuid(), os.getpid()))}]


# -- what one user can use up -----------------------------------------------------------------------------


@pytest.fixture(name="guest")
def _guest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all clients processes of a user who is not root, whose places rest for an hour."""
    monkeypatch.setattr(control_server, "_peer_of", lambda _: control_server.Peer(7, 1))
    monkeypatch.setattr(control_server, "SHORTEST_REST", 3_600.0)
    monkeypatch.setattr(control_server, "LONGEST_REST", 3_600.0)
    monkeypatch.setattr(control_server, "_STOP", 0.01)


def last_of(path: Path, handlers: Mapping[str, Handler], *lines: bytes) -> list[Any]:
    """Serve; send each line on a connection of its own, and wait for the answer a short time.

    Return the answers; None where there was none.
    """

    async def one(line: bytes) -> Any:  # noqa: ANN401 - any answer
        with suppress(TimeoutError):
            async with asyncio.timeout(0.3), client(path) as (reader, writer):
                writer.write(line + b"\n")
                return json.loads(await reader.readline())

    async def main() -> list[Any]:
        async with serve(path, handlers):
            return [await one(line) for line in lines]

    return asyncio.run(main())


@pytest.mark.usefixtures("guest")
@pytest.mark.parametrize("line", [b'{"do": "refuse"}', b"{}", b"[" * 1_000])
def test_each_request_has_a_place(path: Path, line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also an unknown or refused request takes a place, which rests although the user connects again."""
    monkeypatch.setattr(control_server, "MOST_RUNNING_OF_USER", 2)

    answers = last_of(path, HANDLERS, line, line, b'{"do": "echo"}')

    assert [answer is not None for answer in answers] == [True, True, False]


def test_the_share_of_a_user_is_kept_while_it_is_used() -> None:
    """The share of a user stays while a connection or a resting place uses it; then it is forgotten."""
    clients = control_server._Clients({})
    connected = clients._shares(7)[-1]
    connected.connections = 1
    resting = clients._shares(8)[-1]
    resting.resting = 1
    unused = clients._shares(9)[-1]

    assert clients._shares(7)[-1] is connected
    assert clients._shares(8)[-1] is resting
    assert clients._shares(9)[-1] is not unused


def test_other_users_send_short_requests(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request of 64 KiB is refused with the reason, before it becomes Python objects."""
    monkeypatch.setattr(control_server, "_peer_of", lambda _: control_server.Peer(7, 1))
    fits = json.dumps({"do": "echo", "text": "x" * (MAX_REQUEST_OF_OTHERS - 100)}).encode()

    [answer] = served(path, fits)
    assert len(answer["ok"]["text"]) == MAX_REQUEST_OF_OTHERS - 100
    [refused] = served(path, b"[]," * MAX_REQUEST_OF_OTHERS)
    assert "longer than 65536 bytes; send fewer values at once, or be root" in refused["error"]


def test_a_list_waits_for_its_place(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a client does not read its list, no other list of its user is made; other requests run."""
    monkeypatch.setattr(control_server, "_peer_of", lambda _: control_server.Peer(7, 1))
    monkeypatch.setattr(control_server, "_STOP", 0.01)
    began: list[str] = []

    def parts(name: str) -> Iterator[bytes]:
        began.append(name)
        yield b"["
        yield from [b" " * 1_000_000] * 20
        yield b"]"

    async def main() -> list[Any]:
        handlers: dict[str, Handler] = {
            **HANDLERS,
            "list": lambda request: Encoded(parts(request["name"])),
        }
        async with asyncio.timeout(10), serve(path, handlers), client(path) as (reader, first):
            first.write(b'{"do": "list", "name": "first"}\n')
            await reader.readexactly(1)
            async with client(path) as (_, second):
                second.write(b'{"do": "list", "name": "second"}\n')
                return await exchange(path, b'{"do": "echo"}')

    assert asyncio.run(main()) == [{"ok": {}}]
    assert began == ["first"]


def test_a_list_that_fails(path: Path) -> None:
    """If a list cannot be begun, the client gets the error. If it fails later, its connection ends."""

    def half() -> Iterator[bytes]:
        yield b"[1"
        raise ValueError("secret detail")

    async def main() -> tuple[list[Any], bytes]:
        handlers = {**HANDLERS, "half": lambda _: Encoded(half())}
        async with asyncio.timeout(10), serve(path, handlers):
            answers = await exchange(path, b'{"do": "broken"}', b'{"do": "echo"}')
            async with client(path) as (reader, writer):
                writer.write(b'{"do": "half"}\n')
                rest = b""
                with suppress(ConnectionError):
                    rest = await reader.read()
        return answers, rest

    with capture_logs() as logs:
        answers, rest = asyncio.run(main())
    assert answers == [{"error": "no answer"}, {"ok": {}}]
    assert not rest.endswith(b"\n")
    assert [entry["event"] for entry in logs] == ["control.defect"]


def test_nothing_is_done_for_a_client_that_has_gone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request whose client disconnects while it waits for its place is dropped."""
    monkeypatch.setattr(control_server, "_peer_of", lambda _: control_server.Peer(7, 1))
    monkeypatch.setattr(control_server, "MOST_RUNNING_OF_USER", 1)
    done: list[int] = []

    async def main() -> None:
        release = asyncio.Event()

        async def hang(_: Mapping[str, Any]) -> None:
            await release.wait()

        handlers: dict[str, Handler] = {"hang": hang, "note": lambda request: done.append(request["number"])}
        async with asyncio.timeout(10), serve(path, handlers), client(path) as (reader, first):
            first.write(b'{"do": "hang"}\n')
            async with client(path) as (_, gone):
                gone.write(b'{"do": "note", "number": 1}\n')
                await gone.drain()
            await gone.wait_closed()
            release.set()
            await reader.readline()
            await exchange(path, b'{"do": "note", "number": 2}')

    asyncio.run(main())
    assert done == [2]


def test_open_clients_leave_no_traceback_at_the_stop(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Idle clients, streams and requests that run end with the daemon, each in order."""
    monkeypatch.setattr(control_server, "_STOP", 0.05)
    ended: list[str] = []

    async def hang(_: Mapping[str, Any]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("request")

    async def main() -> None:
        numbers, clients = Numbers(2), list[asyncio.StreamWriter]()
        handlers: dict[str, Handler] = {**HANDLERS, "hang": hang, "follow": lambda _: Stream(numbers.lines())}
        async with asyncio.timeout(10), serve(path, handlers):
            for line in (b"", b'{"do": "echo"}\n', b'{"do": "hang"}\n', b'{"do": "follow"}\n'):
                _, writer = await asyncio.open_unix_connection(path)
                writer.write(line)
                clients.append(writer)
            await numbers.all_sent.wait()
        assert numbers.ended.is_set()
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
        for writer in clients:
            writer.close()
        await asyncio.sleep(0)  # they close

    asyncio.run(main())
    assert ended == ["request"]
    assert caplog.records == []
