"""Changes of alarms that detection requests."""

from attrs import frozen

from ringfence.alarm_codes import AlarmCode


@frozen
class AlarmChange:
    """A request to raise or clear an alarm, with the alarm's code, its subject and its text.

    With ``cleared``, clear the alarm. Otherwise the alarm stays active for ``lasts`` seconds from now.
    """

    code: AlarmCode
    subject: str
    text: str
    cleared: bool = False
    lasts: float = 600.0
