"""The state of the fence that a restart must not lose: one fact of the database, as JSON."""

import json

from attrs import define, field, frozen

from ringfence.firewall.cleanup import flush_everything
from ringfence.store.database import Store
from ringfence.store.tables import SavedState

FACT = "fence"
"""The name of the fact."""


@frozen
class Outside:
    """An account that worked at an address outside the fence: why it is a friend, and since when."""

    account: str
    address: str
    reason: str
    since: float


@frozen
class Admitted:
    """An address, a network or a host name that the fence admits until a time (seconds since the epoch)."""

    what: str
    until: float


@define
class FenceState:
    """What a restart must not lose.

    ``observed`` is when the fence began to observe, ``trial`` the end of the trial; None if there is none.
    ``watched``: for how many seconds it has observed or dropped since then, while the daemon ran.
    """

    observed: float | None = None
    watched: float = 0.0
    trial: float | None = None
    confirmed: bool = False
    outside: list[Outside] = field(factory=list)
    admitted: list[Admitted] = field(factory=list)

    @classmethod
    def parse(cls, text: str | None) -> "FenceState":
        """Parse the recorded state; a new one if there is none, or if it is damaged."""
        try:
            found = json.loads(text or "{}")
            return cls(
                None if found.get("observed") is None else float(found["observed"]),
                float(found.get("watched", 0.0)),
                None if found.get("trial") is None else float(found["trial"]),
                found.get("confirmed") is True,
                [Outside(**one) for one in found.get("outside", [])],
                [Admitted(str(one["what"]), float(one["until"])) for one in found.get("admitted", [])],
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls()


def end(store: Store, finish: float) -> None:
    """Remove everything from the kernel if the trial of the fence ends at ``finish``, and no daemon ended it.

    The next start of the daemon puts back all but the fence.
    """
    if trial_of(store.state) == finish:
        flush_everything()


def trial_of(state: SavedState) -> float | None:
    """Return the end of the recorded trial of the fence; None if there is none."""
    return FenceState.parse(state.fact(FACT)).trial
