"""Send one message by a child process, so that no server and no program can delay the daemon.

The child (``sender``) gets the message and the settings of the channel as JSON on its standard input, so
that no secret is in its arguments. It prints its result as JSON. It runs no program of a channel itself:
see :mod:`ringfence.features.notify.programs`. It is killed at the end, and has none of the daemon's
capabilities (``unprivileged``). No thread waits for the child: the event loop reads the result until the
child closes its socket.
"""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from ringfence.features.notify.settings import AppriseSettings, ChannelSettings, HookSettings, MailSettings
from ringfence.values.secret import Secret
from ringfence.values.text import printable

COMMAND = (sys.executable, "-P", "-m", "ringfence.features.notify.unprivileged")
GRACE = 5.0
"""Seconds that a child has in addition to the channel's timeout, to start and to report."""
MAX_RESULT = 64 * 1024  # bytes of the child's result
MAX_REASON = 300  # characters of the result's text, or bytes of an invalid result

_KINDS: Mapping[type[ChannelSettings], str] = {
    MailSettings: "mail",
    AppriseSettings: "apprise",
    HookSettings: "hook",
}
_REAP_EVERY = 0.05  # seconds
_REAP_FOR = 5.0  # seconds


@frozen
class Delivery:
    """The result of one attempt to send: whether the channel accepted the message, and its answer."""

    ok: bool
    text: str


async def send(
    channel: ChannelSettings,
    content: Mapping[str, object],
    host: str,
    databases: tuple[Path, ...] = (),
    *,
    command: tuple[str, ...] = COMMAND,
) -> Delivery:
    """Send the message with ``content`` by ``channel`` in a child process; return the result.

    A failure is a result, too: this raises only if cancelled. ``host`` is the name of this host.
    ``databases`` are the files from which locations are read. ``command`` starts the child.
    """
    request = {
        "channel": channel_as_json(channel),
        "content": content,
        "host": host,
        "databases": [str(path) for path in databases],
    }
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:
        return Delivery(ok=False, text=f"no socket for the sender: {error.strerror}")
    with ours, theirs:
        ours.settimeout(0)
        try:
            process = subprocess.Popen(  # noqa: S603, ASYNC220 - starts the child fast (vfork), without waiting
                command,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            return Delivery(ok=False, text=f"{command[0]} cannot be run: {error.strerror}")
        theirs.close()
        try:
            async with asyncio.timeout(channel.timeout + GRACE):
                answer = await _exchange(ours, json.dumps(request).encode())
        except TimeoutError:
            return Delivery(ok=False, text=f"no result within {channel.timeout:.0f} s")
        except OSError:
            answer = b""
        finally:
            with suppress(PermissionError):
                process.kill()
            await _reap(process)
    return _delivery(answer)


def channel_as_json(channel: ChannelSettings) -> dict[str, object]:
    """Return the settings of a channel as JSON for the child process, with the password in clear text."""
    values = asdict(channel, recurse=False, value_serializer=_plain)
    return {"kind": _KINDS[type(channel)], **values}


def _plain(_: object, __: object, value: Any) -> object:  # noqa: ANN401 - whatever a key has
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, tuple):
        return [str(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


async def _exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send ``request`` to the child process, and return everything that the child writes until it ends."""
    loop = asyncio.get_running_loop()
    with suppress(ConnectionError):  # a child that failed early may still have written the reason
        await loop.sock_sendall(connection, request)
        connection.shutdown(socket.SHUT_WR)
    answer = bytearray()
    while len(answer) <= MAX_RESULT and (part := await loop.sock_recv(connection, MAX_RESULT)):
        answer += part
    return bytes(answer)


async def _reap(process: "subprocess.Popen[bytes]") -> None:
    """Wait for the end of a killed process, for at most ``_REAP_FOR`` seconds.

    If it ends later, Python collects its exit code when it starts another process.
    """
    for _ in range(round(_REAP_FOR / _REAP_EVERY)):
        if process.poll() is not None:
            return
        await asyncio.sleep(_REAP_EVERY)


def _delivery(answer: bytes) -> Delivery:
    try:
        found = json.loads(answer)
        return Delivery(ok=found["ok"] is True, text=printable(str(found["text"])[:MAX_REASON]))
    except (ValueError, LookupError, TypeError, RecursionError):
        return Delivery(ok=False, text=f"the sender failed: {printable(repr(answer[:MAX_REASON]))}")
