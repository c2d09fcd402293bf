"""The alarm about phones that are gone."""

from ringfence.alarm_codes import AnyAlarmCode


class PhonesAlarmCode(AnyAlarmCode):
    """The code of the alarm about phones that were registered for a day and are away."""

    PHONE_GONE = (
        "phone.gone",
        "Phones that were registered for a day are away, longer than `gone_after` of `[phones]`.",
        "If all phones of a network are gone, look at its line, otherwise at the phones.",
    )


CODES = PhonesAlarmCode
