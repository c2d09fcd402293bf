"""Runs a program of a channel by the service ``ringfence-notify`` (:mod:`ringfence.features.notify.runner`).

The daemon's own user runs no program of a channel: that user owns the control socket, the secrets and the
database. The service gets a secret that a program needs with the job, so it may read none of the daemon's
files. Its result is hostile, because a program can write it: it is bounded in bytes and in time.
"""

import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ringfence.features.notify.hook_variables import HOOK_VARIABLES
from ringfence.features.notify.message import compose, without_markup

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
    """Raise ValueError unless the service's ``answer`` reports that ``program`` ended with exit code 0."""
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


# -- sends messages with the command ``apprise``, which knows a hundred services
#
# Apprise's own configuration file has their addresses and secrets. The daemon's user reads it and passes
# its text on, so the user that runs the command cannot read it between two messages, and no file has a
# copy. The command gets plain text on its standard input, and converts it for services that show HTML. Some
# services show Markdown, so text from outside is written without characters of markup.


_YAML = frozenset({".yml", ".yaml"})
_TYPES = {"info": "info", "warning": "warning", "critical": "failure"}


def send_by_apprise(channel: Mapping[str, Any], content: Mapping[str, Any], host: str) -> str:
    """Send a message about the events in ``content``; return a text about the result.

    ``channel`` has the settings of the channel, and ``host`` is the name of this host. Raise OSError or
    ValueError if the message cannot be sent.
    """
    message = compose(content, host, without_markup)
    tag = [f"--tag={channel['tag']}"] if channel["tag"] else []
    file = Path(channel["config"])
    # Apprise chooses the format by the file's name. The file in memory has no such name, so the query names
    # the format.
    query = "?format=yaml" if file.suffix.lower() in _YAML else ""
    try:
        config = file.read_text("utf-8", "surrogateescape")
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from None
    command = [
        channel["command"],
        *tag,
        "--input-format=text",
        f"--notification-type={_TYPES[content['severity']]}",
        f"--title={message.title}",
    ]
    run(channel, command, message.body, config=config, config_query=query)
    return f"{channel['command']} accepted it"


# -- runs a command of the administrator for each message
#
# The command gets the message as JSON on its standard input, and the main values in environment variables.
# No shell is involved. In the variables, everything except letters, digits and a few signs is
# percent-encoded. So if a script forgets to quote a variable, the text of an attacker still is a single
# argument, is no option, and runs no command.


_SAFE = "-._+:/@,="


def run_hook(channel: Mapping[str, Any], content: Mapping[str, Any], host: str) -> str:
    """Run the channel's command with the events in ``content``; return a text about the result.

    ``channel`` has the settings of the channel, and ``host`` is the name of this host. Raise OSError or
    ValueError if the command fails.
    """
    message = compose(content, host)
    document = json.dumps({"host": host, "title": message.title, **content}) + "\n"
    run(channel, channel["command"], document, variables=variables(content, host, message.title))
    return f"{channel['command'][0]} ended with 0"


def variables(content: Mapping[str, Any], host: str, title: str) -> dict[str, str]:
    """Return the environment variables for a channel's command: events, host, and the message's title.

    If the message has several events, the variables that describe one event (such as its name) are empty.
    """
    events = content["events"]
    event: Mapping[str, Any] = events[0] if content["total"] == 1 else {"event": "digest"}
    values = (
        event["event"],
        content["severity"],
        host,
        title,
        str(content["total"]),
        *(str(event.get(key, "")) for key in ("name", "subject", "text", "seconds")),
    )
    return {name: _encoded(value) for name, value in zip(HOOK_VARIABLES, values, strict=True)}


def _encoded(text: str) -> str:
    """Percent-encode a text, and return it.

    A ``-`` at its start is encoded, too: otherwise a program would read the text as an option.
    """
    encoded = quote(text, safe=_SAFE)
    return f"%2D{encoded[1:]}" if encoded.startswith("-") else encoded
