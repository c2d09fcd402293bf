"""How this host shares its bans: where the local API is, the credentials, and how often it is asked.

The configuration makes this for every command. So this file imports nothing that talks to a server.
"""

from collections.abc import Callable

from attrs import frozen

from ringfence.model import Secret


@frozen
class Access:
    """Where the API is, and the credentials. ``password`` and ``key`` read a file; they raise ValueError."""

    url: str
    machine: str
    password: Callable[[], Secret]
    key: Callable[[], Secret]


@frozen
class Sharing:
    """The API with its credentials, and the time between two requests for decisions in seconds."""

    access: Access
    interval: float
