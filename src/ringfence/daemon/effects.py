"""Carries out what the detector concludes: bans, alarms, new friends, and the observation of suspects.

A suspect is a sender whose attempts only the wire source reported, and whose address is not proven. To
observe it, the kernel copies its SIP requests to the wire source.

At the start, decisions to ban are kept until the friends of this PBX are known (:meth:`EffectHandler.hold`).
Otherwise a rule could ban a phone that registered before the daemon started and now fails.
"""

from collections.abc import Callable, Iterable, Sequence

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import Alarms
from ringfence.detect.alarms import FORGED_BY_TEXT
from ringfence.detect.friends import Friends
from ringfence.detect.judgement import Decision, Disposition, Effect, Judgement, Login
from ringfence.detect.unconfirmed import why_unconfirmed
from ringfence.model import (
    AMI,
    Address,
    AlarmChange,
    AttemptKind,
    EventKind,
    Network,
    Scope,
    SecurityEvent,
    printable,
)

MOST_WAITING = 1_000
"""The maximum number of decisions to ban that are kept at the start.

Only the latest decision is kept for each subject and scope. The scope is the traffic that a ban drops.
"""


class EffectHandler:
    """Carries out the effects that the detector returns.

    It updates ``alarms``. ``friends`` are needed when the kept decisions are carried out. The others are
    functions that are called:

    - ``ban`` with each decision to ban.
    - ``unaffected`` with each attempt of a banned or exempt address, except floods.
    - ``observe`` with the addresses of suspects.
    - ``learn`` with each login that makes its sender a friend.
    - ``unshield`` when a friend may have lost its exemption from the limiter. It loses the exemption for a
      while if guesses name its address and cannot be proven.
    - Each function in ``watch`` with every judgement, after the ban that follows from it.

    There are eight parameters because each kind of effect has a receiver of its own.
    """

    def __init__(
        self,
        ban: Callable[[Decision], object],
        alarms: Alarms,
        friends: Friends,
        *,
        unaffected: Callable[[Judgement], object] = lambda _: None,
        observe: Callable[[Iterable[Address]], object] = lambda _: None,
        learn: Callable[[SecurityEvent], object] = lambda _: None,
        unshield: Callable[[], object] = lambda: None,
        watch: Sequence[Callable[[Judgement], object]] = (),
    ) -> None:
        self._ban = ban
        self._alarms = alarms
        self._friends = friends
        self._unaffected = unaffected
        self._observe = observe
        self._learn = learn
        self._unshield = unshield
        self._watch = watch
        self._held: dict[tuple[Network, Scope], Decision] | None = None

    def hold(self) -> None:
        """Keep decisions to ban instead of carrying them out, until :meth:`release`."""
        self._held = {}

    def release(self) -> None:
        """Carry out the kept decisions. Drop those that would ban a network with a friend in it."""
        held, self._held = self._held or {}, None
        for decision in held.values():
            if not self._friends.any_in(decision.subject):
                self._ban(decision)

    def carry_out(self, effects: Iterable[Effect]) -> None:
        """Carry out effects, in their order."""
        for effect in effects:
            if isinstance(effect, Judgement):
                self._apply(effect)
            elif isinstance(effect, Login):
                self._learn(effect.event)
                self._clear_broken_phone(effect.event)
            else:
                self._change_alarm(effect)

    def _clear_broken_phone(self, event: SecurityEvent) -> None:
        """Clear the alarm about a phone that works again; ``event`` is its login.

        Every login clears the alarm, because an earlier run of the daemon may have activated it.
        """
        self._alarms.clear(AlarmCode.PHONE_BROKEN, f"{printable(event.account)} at {event.remote.address}")

    def warn_of(self, event: SecurityEvent) -> None:
        """Activate an alarm if ``event`` was tampered with, or if AMI reported it and it is forgeable.

        Tampered with: a request contained text that imitates AMI events. Forgeable: text of the sender may
        have chosen the address that the event names.
        """
        if event.tampered:
            self._alarms.activate(AlarmCode.EVIDENCE_TAMPERED, str(event.source), _TAMPERED)
        if event.forgeable and event.source.name == AMI:
            self._alarms.activate(AlarmCode.EVIDENCE_FORGEABLE, str(event.source), _FORGEABLE)

    def _apply(self, judgement: Judgement) -> None:
        """Carry out the judgement's decision, if it has one, and then its other effects."""
        if judgement.decision is not None:
            self._decide(judgement.decision)
        for watch in self._watch:
            watch(judgement)
        attempt = judgement.attempt
        if judgement.disposition in (Disposition.LATE, Disposition.EXEMPT):
            # A flood does not show that a ban has no effect: if bans reject packets instead of dropping them,
            # the limiter still counts the packets of banned senders.
            if attempt.kind is not AttemptKind.FLOOD:
                self._unaffected(judgement)
        elif judgement.suspect:
            self._observe((attempt.address,))
        self._warn_of_attempt(judgement)

    def _decide(self, decision: Decision) -> None:
        if self._held is None:
            self._ban(decision)
        elif len(self._held) < MOST_WAITING:  # else drop it: if attempts go on, the detector decides again
            self._held[decision.subject, decision.scope] = decision

    def _change_alarm(self, change: AlarmChange) -> None:
        if change.cleared:
            self._alarms.clear(change.code, change.subject)
        else:
            self._alarms.activate(change.code, change.subject, change.text, change.lasts)
        if change.code is AlarmCode.EVIDENCE_UNPROVABLE:
            self._unshield()

    def _warn_of_attempt(self, judgement: Judgement) -> None:
        attempt, address = judgement.attempt, str(judgement.attempt.address)
        activate = self._alarms.activate
        if attempt.forged_address is not None:
            own = judgement.disposition is not Disposition.FORGED
            text = FORGED_BY_TEXT if own else _TWO_NAMES
            activate(AlarmCode.EVIDENCE_FORGED_BY, address, text.format(at=attempt.forged_address))
        elif judgement.disposition is Disposition.FORGED:
            activate(AlarmCode.EVIDENCE_FORGED, address, _FORGED)
        if attempt.event is EventKind.HIDDEN:
            activate(AlarmCode.EVIDENCE_HIDDEN, address, _HIDDEN)
        if judgement.disposition is Disposition.UNCONFIRMED:
            activate(AlarmCode.EVIDENCE_UNCONFIRMED, address, _LISTED.format(why=why_unconfirmed(attempt)))


_FORGEABLE = (
    "an HTTP client can forge events inside the user name of a manager login, so events that came with one "
    "cause no ban by themselves; fix: webenabled = no in manager.conf [general] and manager reload; or, if "
    "it is needed, the eventfilter line of ringfence.manager.conf and systemctl restart ringfence"
)
_TAMPERED = "a request contained text that imitates AMI events; it counts as an attempt of its true sender"
_TWO_NAMES = (
    "AMI names {at} and the log names this address for one attempt of chan_sip: without the wire neither is "
    "proof, so neither is banned"
)
_FORGED = (
    "a log line names this address, but Asterisk sent it nothing: a sender made Asterisk write that line, so "
    "it does not count"
)
_LISTED = "{why}, so it is listed and not banned"
_HIDDEN = "Asterisk answered its request and reported no event: the sender hides from Asterisk's events"
