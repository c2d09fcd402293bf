"""The alarms about databases of countries."""

from ringfence.alarm_codes import AnyAlarmCode


class GeoAlarmCode(AnyAlarmCode):
    """The codes of alarms about country databases: one is unreadable, or no one knows a listed region."""

    GEO_UNREADABLE = (
        "geo.unreadable",
        (
            "A database of regions cannot be read, or its networks cannot be kept for a restart; what was "
            "read last, if anything, counts."
        ),
        "Correct `database` in `[geo]`, or replace the file.",
    )
    LIST_UNKNOWN_REGION = (
        "list.unknown_region",
        "No database has a network of a country or autonomous system on a list.",
        "Correct the entry, or update the database of `[geo]`.",
    )


CODES = GeoAlarmCode
