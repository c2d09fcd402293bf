"""Play the stories of a range of seeds on all processors; print and keep each failure, made shorter."""

import argparse
import gc
import sys
from concurrent.futures import ProcessPoolExecutor

from tests.simulate.cases import keep
from tests.simulate.play import play, shrunk
from tests.simulate.story import story

AT_ONCE = 10
"""The seeds that a process gets at a time."""
GARBAGE = 50_000
"""The number of new objects until Python looks for garbage. A story makes few cycles, and is over soon."""


def main() -> int:
    """Play the stories; return 1 if an invariant failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seeds", default="0-999", help="the seeds: one (7), or the first and the last (0-999)"
    )
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    failed = 0
    with ProcessPoolExecutor(initializer=gc.set_threshold, initargs=(GARBAGE,)) as processes:
        for failure in processes.map(_failure, seeds, chunksize=AT_ONCE):
            if failure:
                failed += 1
                print(failure, flush=True)
                print(f"{keep(failure)}\n", flush=True)
    print(f"{len(seeds)} seeds from {seeds[0]}: {failed} failed")
    return int(failed > 0)


def _failure(seed: int) -> str:
    """Play a story; return its failure, made shorter, and "" if every invariant held."""
    failure = play(seed, story(seed))
    return "" if failure is None else str(shrunk(failure))


if __name__ == "__main__":
    sys.exit(main())
