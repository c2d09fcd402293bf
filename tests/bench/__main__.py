"""``make bench``: measure every figure that ringfence promises, on this machine in one run.

It prints each part's rows and time. If the laboratory has fail2ban, that is measured too. Run it on a machine
that does nothing else. Parts can be chosen (``python -m tests.bench costs``); only a run of all parts writes
RESULTS.md beside this file. A part that fails becomes a row that is not reached, and the others continue.
"""

import argparse
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tests.bench import (
    attacks,
    blames,
    busy,
    checked,
    costs,
    delays,
    disks,
    feeds,
    fence,
    field_files,
    field_logs,
    findings,
    firewall,
    first_seconds,
    fleet,
    floods,
    foreign,
    forged,
    guests,
    honest,
    hostile,
    installation,
    judgement,
    kills,
    large_lists,
    look_ups,
    losses,
    metrics,
    newcomers,
    notifications,
    phones,
    pings,
    proofs,
    rations,
    replays,
    scale,
    threads,
    uncounted,
    web,
)
from tests.bench.figures import Figure, table
from tests.bench.testbed import CORES
from tests.support.fail2ban import tree, why_no_fail2ban
from tests.support.lab import RELEASES, Lab, why_no_asterisk

RESULTS = Path(__file__).with_name("RESULTS.md")
Part = Callable[[Path | None], Iterable[Figure]]
PARTS: Mapping[str, Part] = {
    "first_seconds": first_seconds.figures,
    "field_logs": field_logs.figures,
    "pings": pings.figures,
    "field_files": field_files.figures,
    "guests": guests.figures,
    "foreign": foreign.figures,
    "disks": disks.figures,
    "threads": threads.figures,
    "checked": checked.figures,
    "honest": honest.figures,
    "look_ups": look_ups.figures,
    "attacks": attacks.figures,
    "rations": rations.figures,
    "uncounted": uncounted.figures,
    "findings": findings.figures,
    "hostile": hostile.figures,
    "losses": losses.figures,
    "costs": costs.figures,
    "replays": replays.figures,
    "firewall": firewall.figures,
    "large_lists": large_lists.figures,
    "feeds": feeds.figures,
    "fence": fence.figures,
    "fleet": fleet.figures,
    "scale": scale.figures,
    "delays": delays.figures,
    "floods": floods.figures,
    "kills": kills.figures,
    "newcomers": newcomers.figures,
    "phones": phones.figures,
    "blames": blames.figures,
    "busy": busy.figures,
    "notifications": notifications.figures,
    "forged": forged.figures,
    "judgement": judgement.figures,
    "proofs": proofs.figures,
    "metrics": metrics.figures,
    "web": web.figures,
    "installation": installation.figures,
}
"""A part is called with fail2ban's folder, or with None if fail2ban is missing."""


def main() -> int:
    """Measure the chosen parts; return 1 if a figure was not reached."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure ringfence.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--base", metavar="COMMIT", help="compare the costs with those of this commit")
    arguments = parser.parse_args()
    chosen = arguments.parts or list(PARTS)
    if unknown := set(chosen) - PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}; the parts are {', '.join(PARTS)}")
    if reason := why_no_asterisk():
        print(f"The figures need a real Asterisk: {reason}", file=sys.stderr)
        return 1
    with _tree(arguments.base) as base:
        return _measured(chosen, {**PARTS, "costs": partial(costs.figures, base=base)}, arguments.base)


def _measured(chosen: list[str], parts: Mapping[str, Part], base: str | None) -> int:
    """Measure the chosen parts; return 1 if a figure was not reached."""
    other = _fail2ban()
    head = _head() + (f" Compared with commit {base}." if base else "")
    figures: list[Figure] = []
    took: dict[str, float] = {}
    for name in chosen:
        began = time.monotonic()
        rows = []
        for row in _rows(name, parts[name], other):
            rows.append(row)
            print(f"{time.monotonic() - began:5.0f} s  {row.what}", file=sys.stderr, flush=True)
        took[name] = time.monotonic() - began
        print(f"{table(rows)}\n{name}: {took[name]:.0f} s\n", flush=True)
        figures += rows
    print(f"in all: {sum(took.values()):.0f} s", flush=True)
    if set(chosen) == set(PARTS):
        RESULTS.write_text(_page(head, figures, took), "utf-8")
    return 0 if all(figure.reached is not False for figure in figures) else 1


@contextmanager
def _tree(commit: str | None) -> Iterator[Path | None]:
    """Yield a folder with the files of a commit, or None without a commit."""
    if commit is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        here = Path(__file__).parent
        files = subprocess.run(
            ["git", "archive", commit], cwd=here.parent.parent, capture_output=True, check=True
        )
        subprocess.run(["tar", "-x", "-C", folder], input=files.stdout, check=True)
        yield Path(folder)


def _rows(name: str, part: Part, other: Path | None) -> Iterator[Figure]:
    """Yield the rows of a part, and one more if it fails."""
    try:
        yield from part(other)
    except Exception as error:  # noqa: BLE001 - the other parts are measured all the same
        traceback.print_exc()
        yield Figure(
            what=f"the rest of part `{name}`",
            measured=f"not measured: {str(error)[:300]}",
            must="measured",
            reached=False,
        )


def _fail2ban() -> Path | None:
    reason = why_no_fail2ban()
    if reason:
        print(f"fail2ban is not measured: {reason}", file=sys.stderr)
    return None if reason else tree()


def _head() -> str:
    """Return what was measured, when, and on what machine."""
    versions = []
    for release in RELEASES:
        with Lab.made(release) as lab:
            versions.append(lab.asterisk.version)
    return (
        f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}, of commit {_commit()}: {len(CORES)} "
        f"processors ({_processor()}), Linux {platform.release()}, Python {platform.python_version()}, "
        f"{' and '.join(versions)}."
    )


def _commit() -> str:
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", f":!{RESULTS.name}")
    return (git("rev-parse", "HEAD") or "unknown") + (
        ", with changes that are not committed" if changed else ""
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").split("\n")
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _page(head: str, figures: list[Figure], took: Mapping[str, float]) -> str:
    seconds = "\n".join(f"| {name} | {part:.0f} |" for name, part in took.items())
    return f"""# What was measured

{head}
All rows are of one run. Each row has its own Asterisk, network and guard, and rules that it does not measure
are off. Guards ban at a threshold of 5. Where the column `cores` is empty, all processes share all cores.

{table(figures)}

## Time

| part | seconds |
|---|---|
{seconds}
| in all | {sum(took.values()):.0f} |
"""


if __name__ == "__main__":
    sys.exit(main())
