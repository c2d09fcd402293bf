"""Runs a program of a channel by the service ``ringfence-notify`` (:mod:`ringfence.notify.runner`).

The daemon's own user runs no program of a channel: that user owns the control socket, the secrets and the
database. The service gets a secret that a program needs with the job, so it may read none of the daemon's
files. Its result is hostile, because a program can write it: it is bounded in bytes and in time.
"""

import json
import socket
from collections.abc import Mapping, Sequence
from typing import Any

MAX_RESULT = 4096  # bytes
_NEED = "ringfence-notify.socket must run; without systemd, see docs/notify.md"


def run(
    channel: Mapping[str, Any],
    command: Sequence[str],
    text: str,
    *,
    variables: Mapping[str, str] | None = None,
    config: str | None = None,
    config_query: str = "",
) -> None:
    """Run a command with ``text`` on its standard input, and with ``variables`` in its environment.

    ``channel`` names the socket of the service and the timeout. If ``config`` is not None, the command gets
    it as a file in memory, and the URL of the file with ``config_query`` as its argument ``--config=``. Raise
    ValueError if the command cannot be run or fails, and TimeoutError if it takes too long.
    """
    job = {
        "command": command,
        "input": text,
        "variables": variables or {},
        "config": config,
        "config_query": config_query,
        "timeout": channel["timeout"],
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(channel["timeout"])
        try:
            connection.connect(channel["socket"])
        except OSError as error:
            reason = f"{channel['socket']}: {error.strerror or error}"
            raise ValueError(f"{command[0]} cannot be run: {reason} ({_NEED})") from None
        try:
            connection.sendall(json.dumps(job).encode())
            connection.shutdown(socket.SHUT_WR)
            answer = _answer(connection)
        except TimeoutError:
            raise
        except OSError:
            answer = b""
    _check(command[0], answer)


def _answer(connection: socket.socket) -> bytes:
    answer = bytearray()
    while len(answer) <= MAX_RESULT and (part := connection.recv(MAX_RESULT)):
        answer += part
    return bytes(answer)


def _check(program: str, answer: bytes) -> None:
    """Raise ValueError unless the service's answer is that the program ended with 0."""
    try:
        result = json.loads(answer) if len(answer) <= MAX_RESULT else None
    except (ValueError, RecursionError):
        result = None
    match result:
        case {"code": 0}:
            return
        case {"code": int(code), "output": str(output)}:
            raise ValueError(f"{program} ended with {code}: {output or 'no reason given'}")
        case {"error": str(error)}:
            raise ValueError(f"{program}: {error}")
    raise ValueError(f"{program}: the service that runs it ended without a result")
