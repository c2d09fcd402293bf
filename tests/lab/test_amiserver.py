"""The AMI server of the tests: it sends its recordings in pieces of the right size, and misbehaves."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import pytest
from tests.support.amiserver import BANNER, BOOTED, HOST, AmiServer, Fault, Script
from tests.support.captures import capture

RECORDED = capture("asterisk-22", "wrong-password-register").ami.read_bytes()
LOGIN = b"Action: Login\r\nActionID: 7\r\nUsername: ringfence\r\nSecret: manager-secret\r\n\r\n"
ACCEPTED = b"Response: Success\r\nActionID: 7\r\nMessage: Authentication accepted\r\n\r\n"

Talk = Callable[[AmiServer, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def talk(script: Script, conversation: Talk) -> AmiServer:
    """Run one conversation with a server that follows the script, and return the server."""

    async def run() -> AmiServer:
        async with asyncio.timeout(20), AmiServer(script) as server:
            reader, writer = await asyncio.open_connection(HOST, server.port)
            try:
                await conversation(server, reader, writer)
            finally:
                writer.transport.abort()
        return server

    return asyncio.run(run())


@pytest.mark.parametrize(("chunk", "pause"), [(-1, 0.0), (0, 0.001), (1, 0.0), (7, 0.0)])
def test_a_recording_is_played_byte_for_byte(chunk: int, pause: float) -> None:
    """The recording arrives unchanged after the login, whatever the size of its pieces."""

    async def conversation(_: AmiServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(LOGIN)
        expected = BANNER + ACCEPTED + BOOTED + RECORDED
        assert await reader.readexactly(len(expected)) == expected

    talk(Script(play=[RECORDED], chunk=chunk, pause=pause), conversation)


def test_md5_login_ping_and_unknown_actions_are_answered() -> None:
    """The MD5 challenge is checked, Ping is answered with its id, and an unknown action is an error."""

    async def conversation(_: AmiServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"Action: Challenge\r\nAuthType: MD5\r\n\r\n")
        challenge = (await reader.readuntil(b"\r\n\r\n")).split(b"Challenge: ")[1].strip()
        key = hashlib.md5(challenge + b"manager-secret", usedforsecurity=False).hexdigest().encode()
        writer.write(
            b"Action: Login\r\nActionID: 7\r\nAuthType: MD5\r\nUsername: ringfence\r\nKey: "
            + key
            + b"\r\n\r\n"
        )
        await reader.readuntil(ACCEPTED + BOOTED)
        writer.write(b"Action: Ping\r\nActionID: 8\r\n\r\nAction: Dance\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(
            b"Response: Success\r\nActionID: 8\r\nPing: Pong"
        )
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"Response: Error\r\n")

    server = talk(Script(), conversation)

    assert server.actions == ["Challenge", "Login", "Ping", "Dance"]


def test_a_wrong_secret_is_refused() -> None:
    """A login with another secret gets an error and the end of the connection."""

    async def conversation(_: AmiServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(LOGIN)
        assert (await reader.read()).endswith(b"Message: Authentication failed\r\n\r\n")

    assert talk(Script(secret="another"), conversation).logins == 0


def test_more_can_be_sent_and_connections_cut() -> None:
    """A test can send more to the clients that are logged in, and can cut every connection."""

    async def conversation(
        server: AmiServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(LOGIN)
        await reader.readuntil(BOOTED)
        await server.send(b"Event: Reload\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"Event: Reload\r\n\r\n"
        await server.hang_up()
        assert await reader.read() == b""

    talk(Script(), conversation)


@pytest.mark.parametrize("fault", list(Fault))
def test_each_fault_has_its_effect(fault: Fault) -> None:
    """Every fault has its described effect at the other end of the connection."""

    async def conversation(_: AmiServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await SEEN[fault](reader, writer)

    talk(Script(fault=fault), conversation)


async def _closes(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    assert await reader.read() == b""


async def _silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.05)


async def _refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(LOGIN)
    assert b"Authentication failed" in await reader.read()


async def _deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(LOGIN)
    await reader.readuntil(BOOTED)
    writer.write(b"Action: Ping\r\n\r\n")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.05)


async def _garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(LOGIN)
    await reader.readuntil(BOOTED)
    assert b"\x00" in await reader.readexactly(64 * 1024)


async def _long_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(LOGIN)
    await reader.readuntil(BOOTED)
    left = 100 * 2**20
    while left:
        part = await reader.read(left)
        assert not part.strip(b"x")
        left -= len(part)


SEEN = {
    Fault.CLOSES: _closes,
    Fault.SILENT: _silent,
    Fault.REFUSES: _refuses,
    Fault.DEAF: _deaf,
    Fault.GARBAGE: _garbage,
    Fault.LONG_LINE: _long_line,
}
