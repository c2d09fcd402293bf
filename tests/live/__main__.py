"""Plays rounds of random SIP to a real Asterisk and the daemon, and prints what the judge objects to.

    python -m tests.live 22 --seconds 600 --seed 7

What the senders of a violation sent and received is written to ``.fuzz/findings/live-RELEASE``.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.findings import FOLDER
from tests.live.play import PBXS, Round, Sender, game


def main() -> int:
    """Play rounds until the time is over; return 1 if an invariant did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.live", description=__doc__)
    parser.add_argument("release", choices=sorted(PBXS))
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    violations = 0
    with tempfile.TemporaryDirectory() as folder, game(options.release, Path(folder), options.seed) as played:
        number, sent, ends = 0, 0, time.monotonic() + options.seconds
        while time.monotonic() < ends:
            found = played.play(number)
            number, sent = number + 1, sent + sum(len(one.requests) for one in found.senders)
            violations += len(found.violations)
            print(
                f"round {number}: {sent} requests so far; in this round {found.refused} guesses refused, "
                f"{found.banned} of {len(found.senders)} senders banned, {len(found.violations)} violations",
                flush=True,
            )
            for violation in found.violations:
                print(f"  {violation}", flush=True)
            _keep(found, FOLDER / "findings" / f"live-{options.release}", f"{options.seed}-{number}")
        print(f"answers without a mark: {len(played.truth.unknown)}")
    return int(violations > 0)


def _keep(found: Round, folder: Path, name: str) -> None:
    """Write the requests and answers of the senders that a violation names."""
    for sender in found.senders:
        texts = [str(one) for one in found.violations if sender.address in str(one).split()]
        if texts:
            folder.mkdir(parents=True, exist_ok=True)
            lines = [*texts, f"{sender.pbx} {sender.transport}", *_lines(sender)]
            (folder / f"{name}-{sender.address}.txt").write_text("\n".join(lines) + "\n", "utf-8")


def _lines(sender: Sender) -> Sequence[str]:
    sent = [f"> {one.mark} {'clear ' * one.clear}{one.data!r}" for one in sender.requests]
    return [*sent, *(f"< {one!r}" for one in sender.received)]


if __name__ == "__main__":
    sys.exit(main())
