"""``[geo]``: the databases of countries and of autonomous systems."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from ringfence.config.converters import Paths
from ringfence.lists.entries import Configured

if TYPE_CHECKING:
    from ringfence.config.schema import Settings


@frozen
class GeoSettings:
    """``[geo]``: the database files with the networks of countries and of autonomous systems."""

    database: Paths | None = None


TABLE = GeoSettings


def with_lists(configured: Configured, settings: "Settings") -> Configured:
    """Return ``configured``, the configured part of the lists, with the files of the networks of regions."""
    databases = tuple(settings.of(GeoSettings).database or ())
    return evolve(configured, databases=databases, kept=settings.store.path.parent / "regions")


def problems(_: GeoSettings, tree: Mapping[str, object]) -> list[str]:
    """Return a problem for each table that has countries if ``[geo]`` has no database.

    A database with an invalid path counts, too, because the path is reported elsewhere.
    """
    geo = tree.get("geo")
    if isinstance(geo, Mapping) and "database" in geo:
        return []
    return [
        f"{name}.countries: need a database of networks; fix: name one in [geo] database"
        for name, table in tree.items()
        if isinstance(table, Mapping) and table.get("countries")
    ]
