"""The alarms about the rations: their codes, and what each means and asks for."""

from ringfence.alarm_codes import AnyAlarmCode, Mark


class RationAlarmCode(AnyAlarmCode):
    """The codes of the alarms about the kernel's limits on refusals and requests of one stranger."""

    RATION_FULL = (
        "ration.full",
        "The ration has no room for more strangers, so refusals to new ones pass.",
        "Find out who makes Asterisk refuse so many addresses; ask your provider for help.",
        Mark.STATE,
    )
    ASKING_FULL = (
        "asking.full",
        "The ration of questions has no room for more strangers, so what new ones ask passes.",
        "Ask your provider for help against the flood.",
        Mark.STATE,
    )


CODES = RationAlarmCode
