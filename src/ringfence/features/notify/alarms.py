"""The alarms about channels of notifications that fail: their codes, and what each means and asks for."""

from ringfence.alarm_codes import AnyAlarmCode, Mark


class NotifyAlarmCode(AnyAlarmCode):
    """The codes of the alarms about messages to administrators that cannot be sent."""

    NOTIFY_FAILING = (
        "notify.failing",
        "A channel of `[notify]` does not deliver messages; ringfence tries again.",
        "Remove the cause, which the text names, and run `ringfence notify test`.",
        Mark.KNOWN_LATE,
    )
    NOTIFY_DROPPED = (
        "notify.dropped",
        "A channel of `[notify]` failed for so long that messages were dropped.",
        "Remove the cause of its failures; the alarm clears with the next message that is delivered.",
        Mark.KNOWN_LATE,
    )


CODES = NotifyAlarmCode
