"""Runs a command of the administrator for each message.

The command gets the message as JSON on its standard input, and the main values in environment variables. No
shell is involved. In the variables, everything except letters, digits and a few signs is percent-encoded. So
if a script forgets to quote a variable, the text of an attacker still is a single argument, is no option, and
runs no command.
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ringfence.config.hook_variables import HOOK_VARIABLES
from ringfence.notify.message import compose
from ringfence.notify.programs import run

_SAFE = "-._+:/@,="


def send(channel: Mapping[str, Any], content: Mapping[str, Any], host: str) -> str:
    """Run the channel's command with the events in ``content``; return a text about the result.

    ``channel`` has the settings of the channel, and ``host`` is the name of this host. Raise OSError or
    ValueError if the command fails.
    """
    message = compose(content, host)
    document = json.dumps({"host": host, "title": message.title, **content}) + "\n"
    run(channel, channel["command"], document, variables=variables(content, host, message.title))
    return f"{channel['command'][0]} ended with 0"


def variables(content: Mapping[str, Any], host: str, title: str) -> dict[str, str]:
    """Return the environment variables for the command.

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
    """Percent-encode a text.

    A ``-`` at its begin is encoded, too: otherwise a program would read the text as an option.
    """
    encoded = quote(text, safe=_SAFE)
    return f"%2D{encoded[1:]}" if encoded.startswith("-") else encoded
