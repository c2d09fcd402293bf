"""Logs as they are in the field: recorded cases, every form of one attack's log, and hostile text in a log.

The hostile text is one in ``EVERY`` of the cases with a line feed or an ESC, read from the log alone: no
other source confirms or denies what a line states.
"""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.bench.figures import Figure
from tests.bench.hostile import EVERY, seed_of_today
from tests.support.field import CASES, FORMS, attacked, outcome_of, wrong_cases, wrong_forms
from tests.support.hostile_run import log_only_findings
from tests.support.lab import RELEASES

ATTACKERS = 4
"""The number of senders whom the attack of each form of a log gets banned."""


def figures(_: Path | None) -> Iterator[Figure]:
    """Yield a row for the cases, one for the forms with each Asterisk, and one for the hostile text."""
    wrong = wrong_cases()
    yield Figure(
        what="cases of the field with the right events, attempts and bans, and no false tampering",
        measured=_of(len(CASES), wrong),
        must="all",
        reached=not wrong,
    )
    for release in RELEASES:
        with tempfile.TemporaryDirectory() as folder, attacked(release, Path(folder)) as paths:
            wrong, bans = wrong_forms(paths), len(outcome_of(paths["file"]).bans)
        yield Figure(
            what=(
                f"Asterisk {release}: console on a terminal, JSON, wrappers and syslog with the same bans as "
                "the plain log"
            ),
            measured=_of(len(FORMS), wrong),
            must=f"{len(FORMS)} of {len(FORMS)}, with {ATTACKERS} bans",
            reached=not wrong and bans == ATTACKERS,
        )
    seed = seed_of_today()
    found = log_only_findings(RELEASES, EVERY, seed)
    framed = {address: names for one in found for address, names in one.framed.items()}
    silent = sorted({way for one in found for way in one.silent})
    yield Figure(
        what=(
            f"hostile text with line feeds and ESC, each {EVERY}th case (seed {seed}; "
            f"{sum(one.cases for one in found)} cases), the log alone: others banned"
        ),
        measured=f"{_of_framed(framed)}{''.join(f'; nobody was answered by {way}' for way in silent)}",
        must="0, and guesses are answered by each transport",
        reached=not framed and not silent,
    )


def _of(number: int, wrong: Mapping[str, object]) -> str:
    names = f": not {', '.join(wrong)}" if wrong else ""
    return f"{number - len(wrong)} of {number}{names}"


def _of_framed(framed: dict[str, str]) -> str:
    first = next(iter(framed.items()), None)
    return "0" if first is None else f"{len(framed)}, as {first[0]}: {first[1]}"
