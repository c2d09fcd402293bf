"""Apprise: its command sends to a hundred services. Its own configuration file has the addresses and secrets.

The text goes to its standard input as plain text, and Apprise converts it for services that show HTML. For
services that show Markdown, text from outside is written without characters of markup.
"""

from collections.abc import Mapping
from typing import Any

from ringfence.notify.message import compose, without_markup
from ringfence.notify.programs import run

_TYPES = {"info": "info", "warning": "warning", "critical": "failure"}


def send(channel: Mapping[str, Any], content: Mapping[str, Any], host: str) -> str:
    """Send a message; return what happened. Raise OSError or ValueError."""
    message = compose(content, host, without_markup)
    tag = [f"--tag={channel['tag']}"] if channel["tag"] else []
    command = [
        channel["command"],
        f"--config={channel['config']}",
        *tag,
        "--input-format=text",
        f"--notification-type={_TYPES[content['severity']]}",
        f"--title={message.title}",
    ]
    run(command, message.body.encode())
    return f"{channel['command']} accepted it"
