"""``make bench``: measure every figure that ringfence promises, on this machine in one run.

It prints each part's rows and time. If the laboratory has fail2ban, that is measured too. Run it on a machine
that does nothing else. The counting parts, which mostly wait, are measured first, three at a time. Parts
can be chosen (``python -m tests.bench costs``); only a run of all parts writes RESULTS.md beside this file.
A part that fails becomes a row that is not reached, and the others continue.
After each part, a run of all parts keeps its rows in build/bench.json. If it was interrupted,
``python -m tests.bench --resume`` measures what is missing or failed, if commit and files are the same.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
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
    kept,
    kills,
    large_lists,
    logins,
    look_ups,
    losses,
    metrics,
    newcomers,
    notifications,
    packets,
    phones,
    pings,
    proofs,
    rations,
    replays,
    scale,
    scanners,
    thefts,
    threads,
    uncounted,
    web,
)
from tests.bench.figures import Figure, table
from tests.bench.kept import RESULTS, Measured
from tests.bench.machine import described
from tests.support.fail2ban import tree, why_no_fail2ban
from tests.support.lab import RELEASES, why_no_asterisk

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
    "checked_alone": checked.alone,
    "honest": honest.figures,
    "logins": logins.figures,
    "look_ups": look_ups.figures,
    "attacks": attacks.figures,
    "rations": rations.figures,
    "scanners": scanners.figures,
    "uncounted": uncounted.figures,
    "findings": findings.figures,
    "hostile": hostile.figures,
    "losses": losses.figures,
    "costs": costs.figures,
    "replays": replays.figures,
    "firewall": firewall.figures,
    "packets": packets.figures,
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
    "thefts": thefts.figures,
    "blames": blames.figures,
    "busy": busy.figures,
    "notifications": notifications.figures,
    "forged": forged.figures,
    "judgement": judgement.figures,
    "decisions": judgement.speeds,
    "proofs": proofs.figures,
    "metrics": metrics.figures,
    "web": web.figures,
    "installation": installation.figures,
    "killed_setups": installation.killed_setups,
}
"""A part is called with fail2ban's folder, or with None if fail2ban is missing."""
COUNTING = (
    "checked",
    "judgement",
    "phones",
    "killed_setups",
    "kills",
    "disks",
    "blames",
    "findings",
    "field_logs",
    "scanners",
    "newcomers",
    "proofs",
    "honest",
    "pings",
    "logins",
)
"""The parts that count, and measure no speed and no share of a processor; the longest first.

The parts ``hostile`` and ``losses`` count too, but keep all processors busy: others would be late beside
them. The part ``uncounted`` counts answers while attackers race with the guard: beside others, the guard
would be late.
"""
AT_ONCE = 3
"""How many of the counting parts are measured at a time."""


def main(words: Sequence[str] | None = None) -> int:
    """Measure the chosen parts; return 1 if a figure was not reached."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure ringfence.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--base", metavar="COMMIT", help="compare the costs with those of this commit")
    parser.add_argument("--resume", action="store_true", help="go on with the last run of all parts")
    arguments = parser.parse_args(words)
    chosen = arguments.parts or list(PARTS)
    if arguments.resume and arguments.parts:
        parser.error("--resume is for a run of all parts")
    if unknown := set(chosen) - PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}; the parts are {', '.join(PARTS)}")
    if reason := why_no_asterisk():
        print(f"The figures need a real Asterisk: {reason}", file=sys.stderr)
        return 1
    of = f"{kept.sources()} {arguments.base or ''}".strip() if not arguments.parts else ""
    try:
        done = kept.read(of) if arguments.resume else {}
    except ValueError as error:
        parser.error(str(error))
    began = time.monotonic()
    with _tree(arguments.base) as base:
        compared = {"costs": partial(costs.figures, base=base), "busy": partial(busy.figures, base=base)}
        found = _measured(chosen, {**PARTS, **compared}, of, done)
    took = time.monotonic() - began
    print(f"in all: {took:.0f} s", flush=True)
    if of:
        head = _head() + (f" Compared with commit {arguments.base}." if arguments.base else "")
        RESULTS.write_text(_page(head, found, took, resumed=bool(done)), "utf-8")
    return 0 if all(row.reached is not False for part in found.values() for row in part.rows) else 1


def _measured(
    chosen: list[str], parts: Mapping[str, Part], of: str, done: Mapping[str, Measured]
) -> dict[str, Measured]:
    """Measure the chosen parts except for those that are done; keep all so far if ``of`` is a whole run's."""
    found = dict(done)
    for name, part in _each([name for name in chosen if name not in done], parts, _fail2ban()):
        found[name] = part
        if of:
            kept.write(of, found)
    return {name: found[name] for name in chosen}


def _each(
    names: Sequence[str], parts: Mapping[str, Part], other: Path | None
) -> Iterator[tuple[str, Measured]]:
    """Measure these parts, first the counting ones; yield the name of each when it ends.

    A part is handed to its process only when that is free. So after an interruption no further part begins.
    """
    counting = [name for name in COUNTING if name in names]
    with ProcessPoolExecutor(AT_ONCE, get_context("fork")) as processes:
        measuring: dict[Future[Measured], str] = {}
        while counting or measuring:
            while counting and len(measuring) < AT_ONCE:
                name = counting.pop(0)
                measuring[processes.submit(_measure, name, parts[name], other)] = name
            for ended in wait(measuring, return_when=FIRST_COMPLETED).done:
                yield measuring.pop(ended), ended.result()
    for name in names:
        if name not in COUNTING:
            yield name, _measure(name, parts[name], other)


def _measure(name: str, part: Part, other: Path | None) -> Measured:
    """Measure one part, and print its rows and its time."""
    at, began, rows = f"{datetime.now(UTC):%Y-%m-%d %H:%M}", time.monotonic(), []
    for row in _rows(name, part, other):
        rows.append(row)
        print(f"{time.monotonic() - began:5.0f} s  {row.what}", file=sys.stderr, flush=True)
    took, whole = time.monotonic() - began, all(row.what != _rest(name) for row in rows)
    print(f"{table(rows)}\n{name}: {took:.0f} s\n", flush=True)
    return Measured(at, took, tuple(rows), whole)


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
            what=_rest(name),
            measured=f"not measured: {str(error)[:300]}",
            must="measured",
            reached=False,
        )


def _rest(name: str) -> str:
    """Return what stands for the rows that a part could not yield."""
    return f"the rest of part `{name}`"


def _fail2ban() -> Path | None:
    reason = why_no_fail2ban()
    if reason:
        print(f"fail2ban is not measured: {reason}", file=sys.stderr)
    return None if reason else tree()


def _head() -> str:
    """Return what was measured, when, and on what machine."""
    return f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}, {described(RELEASES)}"


def _page(head: str, found: Mapping[str, Measured], took: float, *, resumed: bool) -> str:
    figures = [row for part in found.values() for row in part.rows]
    times = "\n".join(f"| {name} | {part.began} | {part.seconds:.0f} |" for name, part in found.items())
    run = "one run, which was interrupted and resumed" if resumed else "one run"
    return f"""# What was measured

{head}
All rows are of {run}. Each trial has its own network; rows with the same settings may share an Asterisk and
a guard. Rules that a row does not measure are off. Guards ban at a threshold of 5. Where the column `cores`
is empty, all processes share all cores. A limit in seconds, or in percent of a core, is multiplied by the
pace of the machine at that moment ([pace.py](pace.py)). {AT_ONCE} at a time ran of the parts that
measure no speed: {", ".join(COUNTING)}.

{table(figures)}

## Time

| part | began (UTC) | seconds |
|---|---|---|
{times}
| {"in all, since it was resumed" if resumed else "in all"} | | {took:.0f} |
"""


if __name__ == "__main__":
    sys.exit(main())
