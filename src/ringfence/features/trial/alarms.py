"""The alarms about a trial: their codes, and what each means and asks for."""

from ringfence.alarm_codes import AnyAlarmCode, Mark


class TrialAlarmCode(AnyAlarmCode):
    """The codes of the alarms about a trial, at whose end all rules and bans are removed."""

    TRIAL_NOT_ENDED = (
        "trial.not_ended",
        "A trial has ended, but not everything could be removed.",
        "Run `ringfence off`.",
        Mark.CRITICAL,
        Mark.STATE,
    )
    TRIAL_RUNNING = (
        "trial.running",
        "A trial runs, and removes everything at its end.",
        "Run `ringfence confirm` to keep everything in place.",
        Mark.INFO,
    )


CODES = TrialAlarmCode
