"""Sends messages with the command ``apprise``, which knows a hundred services.

Apprise's own configuration file has their addresses and secrets. The daemon's user reads it and passes its
text on, so the user that runs the command cannot read it between two messages, and no file has a copy. The
command gets plain text on its standard input, and converts it for services that show HTML. Some services show
Markdown, so text from outside is written without characters of markup.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ringfence.notify.message import compose, without_markup
from ringfence.notify.programs import run

_YAML = frozenset({".yml", ".yaml"})
_TYPES = {"info": "info", "warning": "warning", "critical": "failure"}


def send(channel: Mapping[str, Any], content: Mapping[str, Any], host: str) -> str:
    """Send a message about the events in ``content``; return a text about the result.

    ``channel`` has the settings of the channel, and ``host`` is the name of this host. Raise OSError or
    ValueError if the message cannot be sent.
    """
    message = compose(content, host, without_markup)
    tag = [f"--tag={channel['tag']}"] if channel["tag"] else []
    file = Path(channel["config"])
    query = "?format=yaml" if file.suffix.lower() in _YAML else ""  # Apprise asks the name, not the contents
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
