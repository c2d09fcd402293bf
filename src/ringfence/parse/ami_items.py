"""Values that one AMI connection yields, besides security events and entries of lists."""

from typing import TypeAlias

from attrs import frozen

from ringfence.model import SecurityEvent
from ringfence.parse.roster import RosterEvent


@frozen
class Banner:
    """The first line: ``version`` is the AMI's, such as ``11.0.0`` on Asterisk 22. Empty: not an AMI."""

    version: str


@frozen
class Reply:
    """An answer to an action, as text with CR LF between its headers."""

    text: str


@frozen
class ManagerEvent:
    """A mark where an event of a manager action begins; clients of AMI over HTTP write what follows it."""


AmiItem: TypeAlias = Banner | Reply | RosterEvent | SecurityEvent
"""The values that a decoder returns."""
EOL = b"\r\n"
EOL_TEXT = EOL.decode()
