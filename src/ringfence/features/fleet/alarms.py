"""The alarms about the fleet: their codes, and what each means and asks for."""

from ringfence.alarm_codes import AnyAlarmCode, Mark


class FleetAlarmCode(AnyAlarmCode):
    """The codes of the alarms about sharing bans with other hosts."""

    FLEET_FAILED = (
        "fleet.failed",
        "CrowdSec's local API does not answer, or refuses requests; the bans of this host go on.",
        "Remove the cause, which the text names; see `ringfence fleet status`.",
    )
    FLEET_FULL = (
        "fleet.full",
        "Bans are not shared or not applied: a table was full, the API refused them, or it bans too much.",
        "See `ringfence fleet status`; delete wide decisions, or raise `max_bans` in `[firewall]`.",
        Mark.KNOWN_LATE,
    )


CODES = FleetAlarmCode
