"""Plays worlds of ascending seeds until the time is over; prints each failure, shrunk, with its seed."""

import argparse
import sys
import time

from tests.judge.guard import guarding
from tests.judge.worlds import play, shrunk, world


def main() -> int:
    """Play the worlds; return 1 if an invariant failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long to play")
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    seed, failed = options.seed, 0
    while time.monotonic() < end:
        failure = play(world(seed), guarding)
        if failure is not None:
            failed += 1
            print(f"seed {seed}:\n{shrunk(failure, guarding)}\n", flush=True)
        seed += 1
    print(f"{seed - options.seed} worlds from seed {options.seed}: {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
