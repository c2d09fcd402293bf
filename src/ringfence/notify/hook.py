"""A command of the administrator: the message as JSON on standard input, and in variables of the environment.

No shell is involved. In variables, text is percent-encoded except letters, digits and a few signs, so that a
script that forgets its quotes runs no command of a sender, and passes a text as one argument and no option.
"""

import json
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ringfence.config.hook_variables import HOOK_VARIABLES
from ringfence.notify.message import compose
from ringfence.notify.programs import run

_SAFE = "-._+:/@,="


def send(channel: Mapping[str, Any], content: Mapping[str, Any], host: str) -> str:
    """Run the command; return what happened. Raise OSError or ValueError."""
    message = compose(content, host)
    document = json.dumps({"host": host, "title": message.title, **content}).encode() + b"\n"
    environ = {**os.environ, **variables(content, host, message.title)}
    run(channel["command"], document, environ)
    return f"{channel['command'][0]} ended with 0"


def variables(content: Mapping[str, Any], host: str, title: str) -> dict[str, str]:
    """Return the variables of the environment. Those of one event are empty for a digest of several."""
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
    encoded = quote(text, safe=_SAFE)
    return f"%2D{encoded[1:]}" if encoded.startswith("-") else encoded
