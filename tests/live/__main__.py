"""Plays rounds of random SIP to a real Asterisk and the daemon, and prints what the judge objects to.

    python -m tests.live 22 --seconds 600 --seed 7
    python -m tests.live 22 --programs       # scanners and test tools as they come, instead of random SIP

A seed repeats the choices, but not Asterisk's nonces and the ports. The traffic of each sender that a
violation names, or whose victim it names, is written to ``.fuzz/findings/live-RELEASE``.
"""

import argparse
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.findings import FOLDER
from tests.live.play import PBXS, Round, Sender, game
from tests.live.programs import PROGRAMS, attacks, left_out
from tests.support.scanners import NEIGHBOURS

ENOUGH = 10
"""So many senders by one transport must have a guess that was refused."""


def main() -> int:
    """Play until the time is over; return 1 if an invariant did not hold, or if too little was judged."""
    parser = argparse.ArgumentParser(prog="python -m tests.live", description=__doc__)
    parser.add_argument("release", choices=sorted(PBXS))
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--programs", action="store_true")
    options = parser.parse_args()
    return _run_programs(options.release) if options.programs else _play_rounds(options)


def _run_programs(release: str) -> int:
    """Let each installed program attack each PBX of the release, and print which ones are left out."""
    violations = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        game(release, Path(folder), 0, NEIGHBOURS, prompt=True) as played,
    ):
        missing = left_out(PROGRAMS, Path(folder))
        for name, program in missing.items():
            print(f"{name} is left out: {program} is not installed", flush=True)
        names = [name for name in PROGRAMS if name not in missing]
        for pbx in PBXS[release]:
            found, wrong = attacks(played, pbx, Path(folder), names)
            violations += len(wrong)
            print(f"{pbx}, {len(wrong)} violations", *found, *wrong, sep="\n  ", flush=True)
    return int(violations > 0 or not names)


def _play_rounds(options: argparse.Namespace) -> int:
    """Play rounds of random SIP.

    Return 1 after a violation, if no guess by a transport was refused, or if Asterisk exported nothing.
    """
    violations = 0
    senders, refused = Counter[str](), Counter[str]()
    with (
        tempfile.TemporaryDirectory() as folder,
        game(options.release, Path(folder), options.seed, prompt=True) as played,
    ):
        number, sent, ends = 0, 0, time.monotonic() + options.seconds
        while time.monotonic() < ends:
            found = played.play(number)
            sent += sum(len(one.requests) for one in found.senders)
            violations += len(found.violations)
            print(
                f"round {number}: {sent} requests so far; in this round {sum(found.refused.values())} clear "
                f"guesses refused, {len(found.banned)} of {len(found.senders)} senders banned, "
                f"{len(found.violations)} violations",
                *found.violations,
                sep="\n  ",
                flush=True,
            )
            _keep(found, FOLDER / "findings" / f"live-{options.release}", f"{options.seed}-{number}")
            for one in found.senders:
                senders[f"{one.pbx} {one.transport}"] += 1
                refused[f"{one.pbx} {one.transport}"] += found.refused[one.address]
            number += 1
        print(f"answers without a mark: {played.truth.unknown}")
    vain = [
        f"{way}: no guess was refused, so nothing was judged"
        for way, many in senders.items()
        if many >= ENOUGH and not refused[way]
    ]
    if not played.truth.exported:
        vain.append("Asterisk exported nothing (HEP): the truth lacks the answers that a ban dropped")
    print(*vain, sep="\n")
    return int(violations > 0 or bool(vain))


def _keep(found: Round, folder: Path, name: str) -> None:
    """Write the requests and answers of the senders that a violation names, or whose victim it names."""
    for sender in found.senders:
        named = {sender.address, sender.victim.address}
        texts = [str(one) for one in found.violations if named & {*re.split(r"[ /]", str(one))}]
        if texts:
            folder.mkdir(parents=True, exist_ok=True)
            lines = [*texts, f"{sender.pbx} {sender.transport}", *_lines(sender)]
            (folder / f"{name}-{sender.address}.txt").write_text("\n".join(lines) + "\n", "utf-8")


def _lines(sender: Sender) -> Iterator[str]:
    for one in sender.requests:
        yield f"> {one.mark} {'clear ' * one.clear}{one.data!r}"
        yield from (f"< {message!r}" for mark, message in sender.received if mark == one.mark)


if __name__ == "__main__":
    sys.exit(main())
