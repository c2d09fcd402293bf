"""The parts of setup that features bring (``street.py``), with their options of the command line."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from inspect import Signature, signature
from pathlib import Path
from typing import Any, Protocol

from ringfence import street
from ringfence.findings import Finding


class Part(Protocol):
    """A feature's part of one run of setup."""

    def plan(self, config: Path, etc: Path, registered: Iterable[Sequence[str]], *, asks: bool) -> bool:
        """Decide what to change, and return whether anything is; raise SetupError if that is impossible.

        ``config`` is the daemon's configuration, and ``etc`` is /etc. ``registered`` are the registrations
        that setup has made. ``asks``: the part can ask the administrator.
        """

    def shown(self) -> Iterator[str]:
        """Yield the lines about the changes, for the administrator."""

    def make(self, run: Any, group: int) -> None:  # noqa: ANN401 - a SetupSession, which imports this module
        """Make the changes by ``run``, and test them; raise SetupError if one fails.

        ``group`` is the group id of the service.
        """

    def proof(self, path: Path) -> Finding:
        """Return whether the part works in the daemon that answers at the control socket ``path``."""


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of all parts to ``command``, which gets them by name (``**``); return it."""
    own = [one for one in signature(command).parameters.values() if one.kind is not one.VAR_KEYWORD]
    more = [one for part in street.functions("setup", "part") for one in signature(part).parameters.values()]
    vars(command)["__signature__"] = Signature([*own, *more])
    return command


def parts_of(options: Mapping[str, Any]) -> tuple[Part, ...]:
    """Return the parts for which these options ask."""
    found = street.functions("setup", "part")
    made = (part(**{name: options[name] for name in signature(part).parameters}) for part in found)
    return tuple(part for part in made if part is not None)
