"""The state of the wire: nonces, hidden and abandoned challenges, and answers."""

from collections.abc import Callable

from attrs import Factory, define

from ringfence.detect.answers import Answers
from ringfence.detect.hidden import Hidden
from ringfence.detect.nonces import Nonces
from ringfence.detect.unanswered import Unanswered
from ringfence.model import AMI, EventKind, SecurityEvent, Service


def not_connected(_: str) -> None:
    """Return None: AMI of no Asterisk is connected."""


@define
class Wire:
    """The facts known from the wire."""

    nonces: Nonces = Factory(Nonces)
    hidden: Hidden = Factory(Hidden)
    unanswered: Unanswered = Factory(Unanswered)
    answers: Answers = Factory(Answers)
    blind_until: float = 0.0
    ahead: float = 0.0  # wall clock minus monotonic clock
    listening: Callable[[str], float | None] = not_connected  # from the last tick, if the wire is complete

    def record_event(self, event: SecurityEvent, now: float) -> None:
        """Record an event of Asterisk."""
        if event.source.name != AMI:
            return
        if event.kind is EventKind.SUCCESSFUL_AUTH and not event.tampered and not event.forgeable:
            if event.service in (Service.PJSIP, Service.SIP):
                self.unanswered.succeeded(event.remote.address, event.source.asterisk, now)
            if event.service is Service.SIP:
                self.answers.succeeded(event.remote.address, now)
        self.hidden.record_event(event, now, now + self.ahead)
