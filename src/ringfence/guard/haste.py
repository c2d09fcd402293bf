"""How long events may gather before the daemon handles them."""

from ringfence.bans.enforcer import Enforcer
from ringfence.clock import Clock
from ringfence.detect.judgement import Disposition, Judgement
from ringfence.detect.rules import By
from ringfence.values.attempt import AttemptKind
from ringfence.values.event import Service, Transport

REST = 0.1
"""Seconds that events may gather while the kernel limits Asterisk's answers.

A stranger then gets no more answers, whether its ban comes at once or so much later. The detector waits
longer for each answer that it may miss (``DIVERTED_SILENCE``, and ``SLOW`` by TLS).
"""
HURRY = 1.0
"""Seconds without a rest after an attempt of a sender whose answers the kernel does not limit."""

_NOT_REFUSED = AttemptKind.PROBE, AttemptKind.MANAGER
"""The kinds of attempts that Asterisk answers without a refusal at the SIP ports."""


class Haste:
    """Decides how long events may gather: not at all while only a ban in time limits a guesser.

    If the rules that limit answers are in place, the kernel limits what a stranger may ask the SIP ports, and
    the refusals that the stranger gets from them. The kernel does not limit friends, IAX2, the manager
    interface, and WebSocket on a port that serves web pages too.
    """

    def __init__(self, enforcer: Enforcer, clock: Clock) -> None:
        self._enforcer = enforcer
        self._clock = clock
        self._hurries_until = 0.0

    def rest(self) -> float:
        """Return how many seconds events may gather now."""
        hurries = self._clock.mono() < self._hurries_until
        return 0.0 if hurries or not self._limits_answers else REST

    def hurry(self) -> None:
        """Let no events gather for ``HURRY`` seconds."""
        self._hurries_until = self._clock.mono() + HURRY

    def on_judgement(self, judgement: Judgement) -> None:
        """Hurry after an attempt of a sender whose answers the kernel does not limit.

        Also hurry during an attack of many senders on one account: each stays below the kernel's limit.
        """
        disposition, attempt, decision = judgement.disposition, judgement.attempt, judgement.decision
        unlimited = (
            attempt.kind in _NOT_REFUSED
            or attempt.service is Service.IAX2
            or attempt.transport in {Transport.WS, Transport.WSS}
        )
        many = decision is not None and decision.rule.by is By.ACCOUNT
        if many or disposition is Disposition.FRIEND or (disposition is Disposition.COUNTED and unlimited):
            self.hurry()

    @property
    def _limits_answers(self) -> bool:
        """Whether the rules that limit answers are in place, for both IP versions."""
        opened = self._enforcer.opened
        return (
            self._enforcer.enforcing
            and opened is not None
            and opened.limits is None
            and self._enforcer.plan.limits_answers
            and all(trouble is None for trouble in opened.families.values())
        )
