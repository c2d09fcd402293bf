"""Faults of the daemon that are put back into the running code: a seed must find each of them."""
# ruff: noqa: ANN401 - a replaced function may be any

from collections.abc import Sequence
from typing import Any

from tests.judge.fault import Fault


def _no_step(right: Any) -> Any:
    def follow_clock(records: Any, found: Any, offset: float, boot: str, now: float) -> None:
        records.record_clock(offset, boot, 0.0, now)

    return follow_clock


def _forgets_failed(right: Any) -> Any:
    def write_kept(self: Any) -> None:
        try:
            right(self)
        finally:
            self._kept.clear()

    return write_kept


async def _not_compared(_self: Any) -> None:
    """Compare nothing."""


FAULTS: Sequence[tuple[Fault, int]] = (
    (
        Fault(
            "a clock that is set while no daemon runs",
            "The bans of the database ended too early or too late after the next start.",
            "ringfence.bans.restore:follow_clock",
            _no_step,
            (),
        ),
        1029,
    ),
    (
        Fault(
            "a write that fails",
            "A ban that could not be written to a full disk was never recorded.",
            "ringfence.store.writer:BestEffort.write_kept",
            _forgets_failed,
            (),
        ),
        4,
    ),
    (
        Fault(
            "removed sets",
            "If another program removed the sets, the bans in them were gone.",
            "ringfence.bans.reconcile:Reconciler.compare",
            lambda _right: _not_compared,
            (),
        ),
        21,
    ),
)
"""The faults, each with a seed that finds it. Their worlds are stories, so the faults have no acts."""
