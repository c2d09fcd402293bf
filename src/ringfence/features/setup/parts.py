"""The parts of setup that features bring (``street.py``)."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

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
