"""The databases in ``ringfence check``."""

from collections.abc import Iterator

from ringfence.cli.check import Checked
from ringfence.features.geo.settings import GeoSettings
from ringfence.findings import Finding


def findings(checked: Checked) -> Iterator[Finding]:
    """Yield a finding for each database file of ``[geo]`` that does not exist."""
    for database in checked.settings.of(GeoSettings).database or ():
        if not database.is_file():
            yield Finding(False, "geo", f"{database} does not exist; see [geo] database")
