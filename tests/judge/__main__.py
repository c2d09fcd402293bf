"""Plays random worlds, then all orders of small ones, until the time is over; prints each failure.

First it puts each known fault back, one by one, and prints what the judge notices. ``--faults``: only this.
"""

import argparse
import random
import sys
import time

from tests.judge.fault import noticed
from tests.judge.faults import FAULTS, NOTHING_TO_PUT_BACK
from tests.judge.guard import guarding
from tests.judge.interleavings import follow, worlds
from tests.judge.worlds import play, shrunk, world


def main() -> int:
    """Spend half of the time on each; return 1 if an invariant failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long to play")
    parser.add_argument("--faults", action="store_true", help="only put the known faults back")
    options = parser.parse_args()
    failed = _faults()
    if options.faults:
        return int(failed > 0)
    failed += _random(options.seed, time.monotonic() + options.seconds / 2)
    failed += _orders(options.seed, time.monotonic() + options.seconds / 2)
    return int(failed > 0)


def _faults() -> int:
    """Put each fault back; print what the judge notices, and count the faults that it does not notice."""
    failed = 0
    for fault in FAULTS:
        failure = noticed(fault)
        failed += failure is None
        print(f"({fault.name}) {fault.sentence} => {failure.violations[0] if failure else 'NOT NOTICED'}")
    for name, reason in NOTHING_TO_PUT_BACK.items():
        print(f"({name}) nothing to put back: {reason}")
    print(f"findings put back: {len(FAULTS) - failed} of {len(FAULTS)} noticed by the judge", flush=True)
    return failed


def _random(first: int, end: float) -> int:
    """Play worlds of ascending seeds until ``end``; print and count the failures, each shrunk."""
    seed, failed = first, 0
    while time.monotonic() < end:
        failure = play(world(seed), guarding)
        if failure is not None:
            failed += 1
            print(f"seed {seed}:\n{shrunk(failure, guarding)}\n", flush=True)
        seed += 1
    print(f"{seed - first} worlds from seed {first}: {failed} failed")
    return failed


def _orders(seed: int, end: float) -> int:
    """Follow all orders of small worlds, in an order that follows from the seed; count the failures."""
    small = list(worlds())
    random.Random(seed).shuffle(small)  # noqa: S311 - worlds, no secrets
    states = failed = followed = 0
    while followed < len(small) and time.monotonic() < end:
        one = small[followed]
        outcome = follow(one)
        followed, states = followed + 1, states + outcome.states
        if outcome.violations:
            failed += 1
            found = "\n".join(f"=> {violation}" for violation in outcome.violations)
            print(f"{one}\nin the order {', '.join(outcome.order)}\n{found}\n", flush=True)
    print(f"all orders of {followed} of {len(small)} small worlds, {states} states: {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(main())
