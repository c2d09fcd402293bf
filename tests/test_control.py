"""The control socket, over real unix sockets: who may speak, what is answered, and what ends nothing."""

import asyncio
import json
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ringfence import control
from ringfence.control import MAX_REQUEST, Encoded, Handler, ask, ask_encoded, serve
from ringfence.errors import ControlError, DaemonUnreachableError, FirewallError

UNKNOWN = {"error": "not a request that this daemon knows; is the command of the same version?"}


def refuse(_: Mapping[str, Any]) -> object:
    """Refuse, as an enforcer does."""
    raise ControlError("switched off")


def fail(_: Mapping[str, Any]) -> object:
    """Fail, as a firewall does."""
    raise FirewallError("no answer")


def stumble(_: Mapping[str, Any]) -> object:
    """Have a defect."""
    raise KeyError("secret detail")


HANDLERS: Mapping[str, Handler] = {
    "echo": dict,
    "refuse": refuse,
    "fail": fail,
    "stumble": stumble,
    "nan": lambda _: {1, 2},
    "parts": lambda _: Encoded([b"[1", b", 2", b', {"a": "}"}]']),
    "many": lambda _: Encoded([b"[", *[b" " * 1_000_000] * 20, b"]"]),
}


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    """Give where the socket is to be."""
    return tmp_path / "control.sock"


@asynccontextmanager
async def client(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect as a command does."""
    reader, writer = await asyncio.open_unix_connection(path, limit=2 * MAX_REQUEST)
    try:
        yield reader, writer
    finally:
        writer.close()


async def say(path: Path, *lines: bytes) -> list[Any]:
    """Send lines over one connection, and give the answers."""
    async with asyncio.timeout(10), client(path) as (reader, writer):
        answers = []
        for line in lines:
            writer.write(line + b"\n")
            answers.append(json.loads(await reader.readline()))
        return answers


def said(path: Path, *lines: bytes) -> list[Any]:
    """Serve, send lines, and give the answers."""

    async def main() -> list[Any]:
        async with serve(path, HANDLERS):
            return await say(path, *lines)

    return asyncio.run(main())


def asked(path: Path, question: Callable[[], object]) -> object:
    """Serve in a thread while ``question`` is asked, and give its answer."""
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


# -- who may speak ----------------------------------------------------------------------------------------


def test_the_socket_is_for_owner_and_group(path: Path) -> None:
    """Mode 0660 from the first moment, the process's umask as before, and gone in the end."""
    before = os.umask(0o022)
    os.umask(before)

    modes: list[int] = []

    async def main() -> None:
        async with serve(path, {"look": lambda _: modes.append(path.stat().st_mode)}):
            await say(path, b'{"do": "look"}')

    asyncio.run(main())
    assert [stat.S_IMODE(mode) for mode in modes] == [0o660]
    assert os.umask(before) == before
    assert not path.exists()


def test_what_a_dead_daemon_left_is_replaced(path: Path) -> None:
    """A socket that nobody listens on makes room."""
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(path))

    assert said(path, b'{"do": "echo", "a": 1}') == [{"ok": {"a": 1}}]


def test_a_living_daemon_is_left_alone(path: Path) -> None:
    """Where another daemon answers, this one refuses to start, and the other goes on."""

    async def main() -> list[Any]:
        async with serve(path, HANDLERS):
            with pytest.raises(ControlError, match="another daemon answers at"):
                async with serve(path, {}):
                    pass
            return await say(path, b'{"do": "echo"}')

    assert asyncio.run(main()) == [{"ok": {}}]


@pytest.mark.parametrize("what", ["absent folder", "a file", "a folder", "too long"])
def test_a_place_where_no_socket_can_be(tmp_path: Path, what: str) -> None:
    """The message names the place and the key; a file that is no socket is never removed."""
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


def test_a_socket_that_was_cleared_away_ends_nothing(path: Path) -> None:
    """If somebody removed the socket's file meanwhile, the daemon still ends in order."""

    async def main() -> None:
        async with serve(path, {"clear": lambda _: path.unlink()}):
            await say(path, b'{"do": "clear"}')

    asyncio.run(main())


# -- what is answered -------------------------------------------------------------------------------------


def test_one_connection_carries_many_requests(path: Path) -> None:
    """Each line is answered by one line, in order, with what the handler gave."""
    lines = [b'{"do": "echo", "n": %d, "text": "\\u00e9\\n"}' % n for n in range(5)]

    assert said(path, *lines) == [{"ok": {"n": n, "text": "é\n"}} for n in range(5)]


@pytest.mark.parametrize(
    "line",
    [
        b"",
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
def test_what_is_no_request_is_told_so(path: Path, line: bytes) -> None:
    """Bad JSON, another shape, an unknown command: an answer that says so, and the next is served."""
    assert said(path, line, b'{"do": "echo"}') == [UNKNOWN, {"ok": {}}]


def test_what_is_refused_is_the_answer(path: Path) -> None:
    """An error that is raised on purpose is told as its text."""
    assert said(path, b'{"do": "refuse"}', b'{"do": "fail"}') == [
        {"error": "switched off"},
        {"error": "no answer"},
    ]


def test_a_defect_is_told_and_logged_in_full(path: Path) -> None:
    """What nobody meant is named without its details, logged with them, and ends nothing."""
    with capture_logs() as logs:
        answers = said(path, b'{"do": "stumble"}', b'{"do": "echo"}')

    assert answers == [{"error": "a defect in ringfence (KeyError); see the daemon's log"}, {"ok": {}}]
    assert [(entry["event"], entry["exc_info"]) for entry in logs] == [("control.defect", True)]


def test_an_answer_that_is_no_json_is_a_defect(path: Path) -> None:
    """What JSON cannot carry is a defect of the handler, told as one."""
    with capture_logs() as logs:
        answers = said(path, b'{"do": "nan"}', b'{"do": "echo"}')

    assert answers == [{"error": "a defect in ringfence (TypeError); see the daemon's log"}, {"ok": {}}]
    assert [entry["event"] for entry in logs] == ["control.defect"]


def test_a_line_too_long_ends_that_connection_only(path: Path) -> None:
    """Beyond a mebibyte without an end of line the client is let go; others are served."""

    async def main() -> tuple[bytes, list[Any]]:
        async with asyncio.timeout(10), serve(path, HANDLERS):
            async with client(path) as (reader, writer):
                writer.write(b"x" * (MAX_REQUEST * 2))
                try:
                    rest = await reader.read()
                except ConnectionError:
                    rest = b""
            return rest, await say(path, b'{"do": "echo"}')

    assert asyncio.run(main()) == (b"", [{"ok": {}}])


def test_a_long_request_is_served(path: Path) -> None:
    """A request of nearly a mebibyte is one, and so is its answer."""
    text = "x" * (MAX_REQUEST - 100)

    assert said(path, json.dumps({"do": "echo", "text": text}).encode()) == [{"ok": {"text": text}}]


def test_a_client_that_goes_ends_nothing(path: Path) -> None:
    """Who hangs up in the middle of a request, or before the answer, is gone and no more."""

    async def main() -> list[Any]:
        async with serve(path, HANDLERS):
            for part in (b"", b'{"do": "ec', b'{"do": "echo"}\n' * 1_000):
                async with client(path) as (_, writer):
                    writer.write(part)
                    writer.transport.abort()
            return await say(path, b'{"do": "echo"}')

    with capture_logs() as logs:
        assert asyncio.run(main()) == [{"ok": {}}]
    assert logs == []


def test_a_client_that_says_nothing_is_let_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while without a request the connection is closed."""
    monkeypatch.setattr(control, "IDLE", 0.05)

    async def main() -> bytes:
        async with asyncio.timeout(10), serve(path, HANDLERS), client(path) as (reader, _):
            return await reader.read()

    assert asyncio.run(main()) == b""


def test_a_client_that_takes_nothing_is_let_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lets his answer lie gets what is on its way already, and nothing is kept for him any longer."""
    monkeypatch.setattr(control, "IDLE", 0.05)
    left = asyncio.Event()

    def parts() -> Iterator[bytes]:
        try:
            while True:
                yield b" " * 1_000_000
        finally:
            left.set()

    async def main() -> None:
        handlers: dict[str, control.Handler] = {"endless": lambda _: Encoded(parts())}
        async with asyncio.timeout(10), serve(path, handlers), client(path) as (_, writer):
            writer.write(b'{"do": "endless"}\n')
            await left.wait()

    asyncio.run(main())


def test_the_end_waits_for_no_client(path: Path) -> None:
    """A client that stays connected is sent home when the daemon ends."""

    async def main() -> tuple[bytes, float]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(10):
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
    assert took < 5


# -- the other end ----------------------------------------------------------------------------------------


def test_a_command_gets_its_answer(path: Path) -> None:
    """ask() gives what the handler gave."""
    answer = asked(path, lambda: ask(path, "echo", networks=["192.0.2.1"], seconds=1.5))

    assert answer == {"networks": ["192.0.2.1"], "seconds": 1.5}


@pytest.mark.parametrize(
    ("do", "text"),
    [
        ("refuse", "^switched off$"),
        ("dance", "not a request that this daemon knows"),
        ("stumble", "a defect"),
    ],
)
def test_a_command_that_is_refused(path: Path, do: str, text: str) -> None:
    """ask() raises ControlError with the daemon's words."""
    with pytest.raises(ControlError, match=text) as caught, capture_logs():
        asked(path, lambda: ask(path, do))

    assert not isinstance(caught.value, DaemonUnreachableError)


def test_no_daemon(path: Path) -> None:
    """No socket, or a dead one: the mend is named."""
    with pytest.raises(DaemonUnreachableError, match=r"no daemon listens at .*systemctl start ringfence"):
        ask(path, "echo")
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(path))
    with pytest.raises(DaemonUnreachableError, match="no daemon listens at"):
        ask(path, "echo")


def test_a_socket_that_one_may_not_use(path: Path) -> None:
    """Without the right to it, the mend is named."""
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(path))
        server.listen()
        path.chmod(0)
        before = os.geteuid()
        if before == 0:
            os.seteuid(65_534)
        try:
            with pytest.raises(DaemonUnreachableError, match="Permission denied; be root, or in the daemon"):
                ask(path, "echo")
        finally:
            os.seteuid(before)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "broke off its answer"),
        (b'{"ok": ', "broke off its answer"),
        (b"hello\n", "makes no sense"),
        (b"[]\n", "makes no sense"),
        (b"{}\n", "makes no sense"),
    ],
)
def test_a_daemon_that_answers_no_answer(path: Path, answer: bytes, text: str) -> None:
    """Half an answer, or none, is a daemon that cannot be reached."""
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(path))
        server.listen()

        def serve_one() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve_one)
        thread.start()
        with pytest.raises(DaemonUnreachableError, match=text):
            ask(path, "echo")
        thread.join(10)


def test_a_daemon_that_does_not_answer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that hangs is waited for so long and no longer."""
    monkeypatch.setattr(control, "PATIENCE", 0.05)
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(DaemonUnreachableError, match="does not answer: timed out"):
            ask(path, "echo")


def test_a_hanging_daemon_keeps_its_socket(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that is too busy to be connected to is no dead one: its socket is not taken away."""
    monkeypatch.setattr(control, "PATIENCE", 0.05)

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


# -- what is JSON already ---------------------------------------------------------------------------------


def test_what_is_json_already_is_passed_on(path: Path) -> None:
    """In parts, as any other result; a command may have it as it came, or read."""
    parsed: object = [1, 2, {"a": "}"}]
    assert said(path, b'{"do": "parts"}', b'{"do": "echo"}') == [{"ok": parsed}, {"ok": {}}]

    assert asked(path, lambda: ask(path, "parts")) == parsed
    assert asked(path, lambda: ask_encoded(path, "parts")) == b'[1, 2, {"a": "}"}]'


def test_what_is_no_json_yet_is_encoded_all_the_same(path: Path) -> None:
    """Whatever the daemon answers comes as JSON, and what it refuses is refused."""
    assert json.loads(asked(path, lambda: ask_encoded(path, "echo", a=1))) == {"a": 1}  # type: ignore[arg-type]
    with pytest.raises(ControlError, match="switched off"):
        asked(path, lambda: ask_encoded(path, "refuse"))


def test_a_list_of_many_megabytes_arrives_whole(path: Path) -> None:
    """Twenty of them, and the connection carries the next request."""
    answer = asked(path, lambda: ask_encoded(path, "many"))

    assert isinstance(answer, bytes)
    assert (len(answer), answer.strip(b" ")) == (20_000_002, b"[" + b" " * 20_000_000 + b"]")


def test_who_reads_quickly_holds_up_nobody_either(path: Path) -> None:
    """Between the parts of a long answer others have their turn, also where each is taken at once."""
    turns = 0
    seen: list[int] = []

    def parts() -> Iterator[bytes]:
        for _ in range(20):
            seen.append(turns)
            yield b" "

    async def others() -> None:
        nonlocal turns
        while len(seen) < 20:
            turns += 1
            await asyncio.sleep(0)

    async def main() -> None:
        handlers: dict[str, control.Handler] = {"many": lambda _: Encoded(parts())}
        async with serve(path, handlers), client(path) as (_, writer), asyncio.TaskGroup() as group:
            group.create_task(others())
            writer.write(b'{"do": "many"}\n')

    asyncio.run(main())
    assert len(set(seen)) == 20


def test_who_does_not_read_holds_up_nobody(path: Path) -> None:
    """While a client lets a long answer lie, others are answered."""

    async def main() -> list[Any]:
        async with serve(path, HANDLERS), client(path) as (_, writer):
            writer.write(b'{"do": "many"}\n')
            await writer.drain()
            return await say(path, b'{"do": "echo", "a": 1}')

    assert asyncio.run(main()) == [{"ok": {"a": 1}}]
