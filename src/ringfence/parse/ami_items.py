"""Values that the decoder of an AMI connection returns, apart from security events and entries of lists."""

from typing import TypeAlias

from attrs import frozen

from ringfence.model import SecurityEvent
from ringfence.parse.roster import RosterEvent


@frozen
class Banner:
    """The first line of a connection.

    ``version`` is that of the AMI protocol, such as ``11.0.0`` on Asterisk 22; "" if the line is not AMI's.
    """

    version: str


@frozen
class Reply:
    """An answer to an action, as text with CR LF between its headers."""

    text: str


@frozen
class ManagerEvent:
    """A mark that an event of service AMI (a manager login or action) begins here.

    A client of AMI over HTTP may have written any item that follows it.
    """


AmiItem: TypeAlias = Banner | Reply | RosterEvent | SecurityEvent
"""The values that a decoder returns."""
EOL = b"\r\n"
EOL_TEXT = EOL.decode()
