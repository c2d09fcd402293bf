"""Play the stories of a range of seeds, and print each failure, made shorter."""

import argparse
import sys

from tests.simulate.play import play, shrunk
from tests.simulate.story import story


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
    for seed in seeds:
        failure = play(seed, story(seed))
        if failure is not None:
            failed += 1
            print(f"{shrunk(failure)}\n", flush=True)
    print(f"{len(seeds)} seeds from {seeds[0]}: {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
