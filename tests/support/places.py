"""Networks with their countries, as a small [geo] database has them, and accounts that are at home there.

with tempfile.TemporaryDirectory() as folder:
    record(Path(folder), ["phone1"])
    with guarded(lab, Path(folder), geo=database_in(Path(folder))) as guard: ...
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from attrs import frozen
from tests.support import mmdb
from tests.support.logins import record_home

from ringfence.features.account.places import DAY, LEARN_FOR


@frozen
class Carrier:
    """A network (``198.19.80.0/20``), its country, and its autonomous system."""

    network: str
    country: str
    asn: int

    @property
    def location(self) -> Mapping[str, str]:
        """What ringfence reads of an address of it."""
        return {"country": self.country, "asn": f"AS{self.asn}"}


HOME = Carrier("198.19.80.0/20", "DE", 64_500)
"""The carrier of the offices and homes, from 198.19.80.0 to 198.19.95.255."""
MOBILE = Carrier("198.19.96.0/20", "DE", 64_501)
HOTELS = Carrier("198.19.112.0/20", "DE", 64_502)
ABROAD = Carrier("198.19.128.0/20", "XX", 64_503)
"""The carrier of thieves, from 198.19.128.0 to 198.19.143.255."""
CARRIERS = HOME, MOBILE, HOTELS, ABROAD


def database_in(folder: Path) -> dict[str, object]:
    """Write the database of these carriers into ``folder``, and return the table ``[geo]``."""
    records = [
        (one.network, {"country": {"iso_code": one.country}, "autonomous_system_number": one.asn})
        for one in CARRIERS
    ]
    return {"database": str(mmdb.write(folder / "geo.mmdb", records))}


def record(folder: Path, names: Iterable[str], address: str = "198.19.90.1") -> None:
    """Record in a guard's database that accounts have been at home at ``address`` for longer than a month."""
    record_home(folder, address, LEARN_FOR + DAY, *names, location=HOME.location)
