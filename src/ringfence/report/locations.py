"""Country and network number of the addresses of a report, from the databases of ``[geo]``."""

from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any


def locations_by_name(
    databases: Sequence[Path], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Mapping[str, str]]:
    """Return what the databases know about the address of each row: the country and the network's operator.

    The keys of the result are the rows' names (``name`` is an address or an IPv6 /64). Without databases it
    is empty.
    """
    if not databases:
        return {}
    from ringfence.lists.geo import locations_of  # noqa: PLC0415 - loaded if there is a database

    names = [str(row["name"]) for row in rows]
    found = locations_of(databases, [ip_network(name).network_address for name in names])
    return dict(zip(names, found, strict=True))
