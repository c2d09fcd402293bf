"""The results of a comparison as text: RESULTS.md with everything, and the table in the README."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from attrs import frozen
from tests.bench.testbed import CORES
from tests.compare.guards import Guard
from tests.compare.rows import Row

RESULTS = Path(__file__).with_name("RESULTS.md")
README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- make compare -->", "<!-- end of make compare -->"
"""The lines of the README between which the table stands."""
_NOT_MEASURED = (
    (
        "sipcheck and sipban are left out: neither Debian nor PyPI has a package of them, so there is no "
        "version that everybody can install"
    ),
    (
        "sipcheck by its source (`sipcheck.py` 3.0 of sinologicnet/sipcheck): within an hour each "
        "`InvalidPassword` of AMI counts 1 and each `ChallengeSent` 0.4; more than 5 are a ban, but not of "
        "an address that has logged in"
    ),
    (
        "sipban by its source (`sipban.pl` of elpop/sipban): the first `InvalidAccountID` or "
        "`InvalidPassword` of AMI is a ban, and so is the sixth `ChallengeSent` within 10 s"
    ),
    "neither has a handler for `ChallengeResponseFailed`, by which PJSIP reports a wrong password",
)
"""The rivals that are left out, and what they would do."""


@frozen
class Compared:
    """A comparison: its time, machine and length, and the cells of each row in the order of the guards."""

    began: datetime
    machine: str
    seconds: float
    guards: Sequence[Guard]
    rows: Sequence[Row]
    cells: Mapping[str, Sequence[str]]


def table(found: Compared, rows: Sequence[Row], *, rivals: bool = False) -> str:
    """Return these rows as a Markdown table; with ``rivals`` without the last column, that of no guard."""
    chosen = range(len(found.guards) - rivals)
    lines = [
        _line("", *(found.guards[at].title for at in chosen)),
        "|" + "---|" * (len(chosen) + 1),
        *(_line(row.what, *(found.cells[row.what][at] for at in chosen)) for row in rows),
    ]
    return "\n".join(lines)


def page(found: Compared) -> str:
    """Return the page with everything."""
    settings = "\n".join(f"- {guard.title}: {guard.settings}." for guard in found.guards)
    left_out = "\n".join(f"- {rival}." for rival in _NOT_MEASURED)
    return f"""# ringfence and its rivals

Written by `make compare` on {found.began:%Y-%m-%d %H:%M} UTC, {found.machine}
All rows are of one run of {found.seconds:.0f} seconds. Each cell has a new network, Asterisk and guard.
The guard runs on one core and the attacker on another one; Asterisk may use all. Beside each guard, Asterisk
writes `messages` and a log with security lines, also if the guard does not read them. If many guesses come at
once, Asterisk's own socket loses some, with any guard and without one. The CPU time of a guard includes that
of the programs that it starts. The attacks are in [rows.py](rows.py), the settings in [guards.py](guards.py).
`make compare ROW=TEXT` measures the rows with this text again.

{table(found, found.rows)}

## Settings

{settings}

Not measured:

{left_out}
"""


def readme(text: str, found: Compared) -> str:
    """Return the README's text with the brief rows between the two marks."""
    before, begin, rest = text.partition(BEGIN + "\n")
    _, end, after = rest.partition(END + "\n")
    if not begin or not end:
        raise ValueError(f"README.md has no lines {BEGIN} and {END}")
    brief = [row for row in found.rows if row.brief]
    head = (
        f"Measured by `make compare` on {found.began:%Y-%m-%d}, on {len(CORES)} cores "
        "([all figures, and the settings](tests/compare/RESULTS.md)):"
    )
    return f"{before}{begin}{head}\n\n{table(found, brief, rivals=True)}\n{end}{after}"


def write(found: Compared) -> None:
    """Write both files."""
    text = readme(README.read_text("utf-8"), found)
    RESULTS.write_text(page(found), "utf-8")
    README.write_text(text, "utf-8")


def _line(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
