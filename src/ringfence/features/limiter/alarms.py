"""The alarms about the limiter: their codes, and what each means and asks for."""

from ringfence.alarm_codes import AnyAlarmCode, Mark


class LimiterAlarmCode(AnyAlarmCode):
    """The codes of the alarms about the kernel's limit on the packets of each source (limiter)."""

    LIMITER_FULL = (
        "limiter.full",
        "The limiter has no room for more sources, because packets come from a million addresses.",
        "Ask your provider for help against the flood.",
        Mark.STATE,
    )
    LIMITER_UNREADABLE = (
        "limiter.unreadable",
        "The sources that exceed the limiter's rate cannot be read, so the rule `flood` bans nothing.",
        "Remove the cause, which the text names.",
        Mark.STATE,
    )


CODES = LimiterAlarmCode
