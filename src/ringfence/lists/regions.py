"""The networks of regions (``entries.py``) on the lists. A feature looks them up."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ringfence import street
from ringfence.alarm_codes import Alarm, AlarmCode, AnyAlarmCode
from ringfence.lists.entries import NO_REGIONS
from ringfence.lists.prefixes import Prefixes
from ringfence.values.network import Address, Network


class Regions:
    """Looks up the networks of regions. This base class knows none, for a copy without the feature ``geo``.

    ``alarms`` are about the files that could not be read in the last call of :meth:`read`. ``failed``: that
    call may succeed without a change of a file.

    One thread may call :meth:`read`, and others the other methods.
    """

    alarms: Sequence[Alarm] = ()
    failed = False

    @property
    def refusal(self) -> str:
        """Why no region can be added to a list; "" if one can."""
        return NO_REGIONS

    def networks(self, regions: frozenset[str]) -> Mapping[str, Prefixes]:
        """Return the known networks of each of ``regions``. No file is read."""
        return dict.fromkeys(regions, Prefixes())

    def unknown(self, region: str) -> bool:  # noqa: ARG002 - for a feature
        """Whether ``region`` may have more networks than are known, because a file was not read."""
        return False

    @property
    def waits(self) -> bool:
        """Whether :meth:`read` must read files for the regions of the last :meth:`networks`."""
        return False

    def changed(self) -> bool:
        """Whether a file has changed since it was last read, or since reading it failed."""
        return False

    def around(self, region: str, network: Network) -> Network | None:  # noqa: ARG002 - for a feature
        """Return the network of ``region`` that contains the whole of ``network``, or None."""
        return None

    def read(self, *, keep: bool = True) -> None:
        """Read the files for the regions of the last :meth:`networks`; ``keep``: save their networks."""


def regions_of(files: Sequence[Path], kept: Path | None) -> Regions:
    """Return the reader of regions in ``files``; ``kept``: the file for the networks read last, or None."""
    for module in street.modules("regions"):
        regions: Regions = module.build(files, kept)
        return regions
    return Regions()


def files_of(settings: Any) -> tuple[Path, ...]:  # noqa: ANN401 - ``config`` imports this package
    """Return the files of the feature's ``settings`` from which locations are read."""
    return tuple(file for module in street.modules("regions") for file in module.files_of(settings))


def known_locations(files: Sequence[Path], addresses: Sequence[Address]) -> list[dict[str, str]]:
    """Return what the files have of the location of each address. A file that cannot be read is left out."""
    found: list[dict[str, str]] = [{} for _ in addresses]
    for module in street.modules("regions") if files else ():
        found = module.locations_of(files, addresses)
    return found


def code_of_unknown() -> AnyAlarmCode:
    """Return the code of the alarm that no database has a network of a region on a list."""
    return next((module.UNKNOWN for module in street.modules("regions")), AlarmCode.LIST_INVALID_ENTRY)
