"""A detector whose effects a test can look at one kind at a time."""

from collections.abc import Iterable
from math import inf

from ringfence.detect.confirmation import NOT_CONNECTED, Listening
from ringfence.detect.detector import Detector
from ringfence.detect.judgement import Effect, Judgement, Login
from ringfence.values.attempt import Attempt
from ringfence.values.event import SecurityEvent
from ringfence.values.friend import Contact
from ringfence.values.packet import CopiedAnswer, CopiedRequest


class Driven(Detector):
    """A detector that returns judgements alone, and learns friends from logins."""

    def observe(self, event: SecurityEvent, now: float, ahead: float = inf) -> list[Judgement]:
        """Handle an event."""
        return self._judgements(super().observe(event, now, ahead))

    def observe_answers(
        self, answers: Iterable[CopiedAnswer], now: float, wall: float, asterisk: str
    ) -> list[Judgement]:
        """Handle answers."""
        return self._judgements(super().observe_answers(answers, now, wall, asterisk))

    def observe_requests(
        self, requests: Iterable[CopiedRequest], now: float, asterisk: str
    ) -> list[Judgement]:
        """Handle copied requests."""
        return self._judgements(super().observe_requests(requests, now, asterisk))

    def observe_contact(self, contact: Contact, now: float) -> list[Judgement]:
        """Handle a contact."""
        return self._judgements(super().observe_contact(contact, now))

    def tick(
        self,
        now: float,
        wall: float = 0.0,
        *,
        wire: bool = False,
        listening: Listening = NOT_CONNECTED,
    ) -> list[Judgement]:
        """Do periodic work."""
        return self._judgements(super().tick(now, wall, wire=wire, listening=listening))

    def judged(self, attempt: Attempt, now: float) -> Judgement:
        """Return the judgement on one attempt."""
        [judgement] = self._judgements(self.judge(attempt, now))
        return judgement

    def _judgements(self, effects: Iterable[Effect]) -> list[Judgement]:
        judgements = []
        for effect in effects:
            if isinstance(effect, Judgement):
                judgements.append(effect)
            elif isinstance(effect, Login) and effect.befriends:
                self.friends.add(effect.friend)
        return judgements
