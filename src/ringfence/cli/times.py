"""Times in the output for people: in UTC, or in the local time zone of the terminal.

``--local`` or the key ``times`` of ``[display]`` chooses local times. JSON is always in UTC.
"""

from datetime import datetime
from typing import Annotated

import typer
from attrs import define

LocalOption = Annotated[bool, typer.Option("--local", help="Show local times instead of UTC.")]


@define
class _Choice:
    """Whether the option ``--local`` is given, and whether the configuration chooses local times.

    Times are local if at least one of them is true.
    """

    option: bool = False
    configured: bool = False

    @property
    def local(self) -> bool:
        return self.option or self.configured


_choice = _Choice()


def choose(*, local: bool) -> None:
    """Record whether the option ``--local`` is given. Without it, the configuration decides."""
    _choice.option = local


def configure(times: str) -> None:
    """Record the key ``times`` of the configuration, ``utc`` or ``local``."""
    _choice.configured = times == "local"


def zone() -> str:
    """Return the name of the time zone in which times are shown: ``UTC`` or ``LOCAL``."""
    return "LOCAL" if _choice.local else "UTC"


def head(name: str) -> str:
    """Return the head of a column with times: its name and the time zone, as ``SINCE (UTC)``."""
    return f"{name} ({zone()})"


def short_time(moment: str | None, unknown: str = "?", *, seconds: bool = False) -> str:
    """Return a time from the daemon's JSON as tables show it: ``2026-11-20 10:14``.

    With ``seconds``, the seconds are shown too. Return ``unknown`` if there is no time.
    """
    if not moment:
        return unknown
    if _choice.local:
        moment = datetime.fromisoformat(moment).astimezone().isoformat()
    return moment.replace("T", " ").removesuffix("Z")[: 19 if seconds else 16]
