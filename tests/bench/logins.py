"""A simulated year of logins of 200 accounts, graded with and without a database of countries.

The year is that of :mod:`tests.support.logins`: offices behind DSL, people at home, ten travellers, moves,
and twenty thefts of passwords of each kind. It counts, and needs no Asterisk.
"""

from collections.abc import Iterator
from pathlib import Path

from tests.bench.figures import Figure
from tests.support.logins import ACCOUNTS, DOMESTIC, FOREIGN, MOBILE, THEFTS, TRAVELLERS, Year, play

_MOST = {True: 1.0, False: 2.0}
_LEAST = {True: THEFTS, False: THEFTS - 2}


def figures(_: Path | None) -> Iterator[Figure]:
    """Yield the rows."""
    for located, most in _MOST.items():
        database = "with a database of countries" if located else "without a database of countries"
        quiet, stolen = play(Year(thefts=False), located=located), play(Year(), located=located)
        yield Figure(
            what=f"a year of logins of {ACCOUNTS} accounts, {TRAVELLERS} travel, {database}: alarms a week",
            measured=f"{quiet.weekly:.2f}",
            must=f"≤ {most:.0f}",
            reached=quiet.weekly <= most,
        )
        least = _LEAST[located]
        yield Figure(
            what=f"{THEFTS} thefts of passwords in that year, from {FOREIGN}, {database}: alarms",
            measured=f"{stolen.alarmed[FOREIGN]}",
            must=f"≥ {least}",
            reached=stolen.alarmed[FOREIGN] >= least,
        )
        yield Figure(
            what=f"the same from {DOMESTIC}, and by {MOBILE}, {database}: alarms, or lines in `events`",
            measured=f"{stolen.listed[DOMESTIC]}, {stolen.listed[MOBILE]}",
            must=f"{THEFTS}, any" if located else "",
            reached=stolen.listed[DOMESTIC] == THEFTS if located else None,
        )
