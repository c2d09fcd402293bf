"""The alarms about databases of countries."""

from ringfence.alarm_codes import AnyAlarmCode


class GeoAlarmCode(AnyAlarmCode):
    """The codes of alarms about country databases: unreadable ones, and listed regions without networks."""

    GEO_UNREADABLE = (
        "geo.unreadable",
        (
            "A database of regions cannot be read, or its networks cannot be kept for a restart; what was "
            "read last, if anything, counts."
        ),
        "Correct `database` in `[geo]`, or replace the file.",
    )
    GEO_REFUSED = (
        "geo.refused",
        (
            "The databases have far fewer addresses of a listed region than before; the networks that were "
            "read last stay."
        ),
        "Look at the databases. To accept them, remove the file that the text names, and restart ringfence.",
    )
    LIST_UNKNOWN_REGION = (
        "list.unknown_region",
        "No database has a network of a country or autonomous system on a list.",
        "Correct the entry, or update the database of `[geo]`.",
    )


CODES = GeoAlarmCode
