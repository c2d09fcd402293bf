"""Passes the reports of all sources to the detector, and carries out the effects that it returns.

No function here is async, so reports are handled completely, one after the other.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from math import inf
from typing import TYPE_CHECKING, Protocol

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import Alarms
from ringfence.bans.enforcer import Enforcer
from ringfence.bans.unban import unban_claims, unban_known
from ringfence.clock import Clock
from ringfence.config.schema import Settings
from ringfence.detect.confirmation import GUESS, KnownSources, why_unconfirmed
from ringfence.detect.detector import Detector
from ringfence.detect.judgement import (
    FORGED_BY_TEXT,
    Decision,
    Disposition,
    Effect,
    Estranged,
    Judgement,
    Login,
    Observe,
)
from ringfence.detect.rules import is_proven
from ringfence.friends.registry import FriendRegistry
from ringfence.host.connections import ConnectionTable
from ringfence.sources.wire import WireSink
from ringfence.values.alarm import AlarmChange
from ringfence.values.ban import WHOLE_SCOPES, Scope
from ringfence.values.event import (
    AMI,
    Endpoint,
    EventKind,
    SecurityEvent,
    Service,
    SourceId,
    Transport,
    short_account,
)
from ringfence.values.friend import Contact, Friend
from ringfence.values.packet import CopiedAnswer, CopiedRequest, Exchange
from ringfence.values.text import printable

if TYPE_CHECKING:
    from ringfence.values.network import Network

# -- carries out what the detector returns: bans, alarms and new friends


MOST_WAITING = 1_000
"""The maximum number of decisions to ban that are kept, not carried out, while the daemon starts.

Only the latest decision is kept for each subject and scope. The scope is the traffic that a ban drops.
"""


class JudgementListener(Protocol):
    """A part of the daemon that gets every judgement of the detector."""

    def on_judgement(self, judgement: Judgement) -> object:
        """Handle a judgement, after the ban that follows from it."""


class LoginListener(Protocol):
    """A part of the daemon that gets every login with a right password."""

    def on_login(self, login: Login) -> object:
        """Handle a login, before its sender becomes a friend."""


class EventListener(Protocol):
    """A part of the daemon that gets the events of all sources except those of copied SIP packets."""

    def on_events(self, events: Sequence[SecurityEvent]) -> object:
        """Handle events before they are judged."""


class Wire(Protocol):
    """The methods of the source of copied SIP packets (the *wire*) that the pipeline calls."""

    def drain(self) -> bool:
        """Read the packets that have arrived, so that they count before the next events of other sources.

        Return whether all were read.
        """

    def ask_amis(self) -> None:
        """Ask every AMI how far its events have been read: unreadable requests or log lines wait for them."""


class EffectHandler:
    """Carries out the effects that the detector returns.

    ``enforcer`` places bans, and ``friends`` keeps the friends and the reasons for them. Each of
    ``listeners`` gets every judgement, and each of ``logins`` every login.
    """

    def __init__(
        self,
        enforcer: Enforcer,
        alarms: Alarms,
        friends: FriendRegistry,
        listeners: Sequence[JudgementListener] = (),
        logins: Sequence[LoginListener] = (),
    ) -> None:
        self.enforcer = enforcer
        self._logins = logins
        self._alarms = alarms
        self._friends = friends
        self._listeners = listeners
        self._held: dict[tuple[Network, Scope], Decision] | None = None

    def hold(self) -> None:
        """Keep decisions to ban until :meth:`release`, instead of carrying them out.

        This is for the start, until the friends of this PBX are known. Otherwise a rule could ban a phone
        that registered before the daemon started and now fails.
        """
        self._held = {}

    def release(self) -> None:
        """Carry out the kept decisions. Drop those about an exempt network, or one with a friend in it.

        The network may be exempt only since the decision, by `ringfence allow` or a login for example.
        """
        held, self._held = self._held or {}, None
        friends, exempt = self._friends.friends, self.enforcer.book.exempt
        self.enforcer.carry_out(
            *(
                one
                for one in held.values()
                if not friends.any_in(one.subject) and exempt.refusal(one.subject) is None
            )
        )

    def carry_out(self, effects: Sequence[Effect]) -> None:
        """Carry out the detector's effects: first all bans at once, then everything else in its order."""
        decisions = [
            one.decision for one in effects if isinstance(one, Judgement) and one.decision is not None
        ]
        if decisions and self._held is None:
            self.enforcer.carry_out(*decisions)
        elif self._held is not None:
            for decision in decisions[: MOST_WAITING - len(self._held)]:  # if attempts go on, others follow
                self._held[decision.subject, decision.scope] = decision
        for effect in effects:
            match effect:
                case Judgement():
                    self._report(effect)
                case Login():
                    self._on_login(effect)
                case Estranged(reasons):
                    self._friends.on_estranged(reasons)
                case Observe():
                    self._friends.changed.set()
                case AlarmChange():
                    self._change_alarm(effect)

    def _on_login(self, login: Login) -> None:
        """Pass a login on to the listeners. If it makes its sender a friend, record that and unban it."""
        for listener in self._logins:
            listener.on_login(login)
        if login.befriends:
            self._friends.on_login(login.friend)
            unban_claims(self.enforcer, login.friend)
            self._clear_broken_phone(login.friend)

    def _clear_broken_phone(self, friend: Friend) -> None:
        """Clear the alarm about a phone that works again, because it has logged in.

        Every login clears the alarm, because an earlier run of the daemon may have activated it.
        """
        account = printable(short_account(friend.account))
        self._alarms.clear(AlarmCode.PHONE_BROKEN, f"{account} at {friend.address}")

    def warn_of(self, event: SecurityEvent) -> None:
        """Activate an alarm if ``event`` was tampered with, or if AMI reported it and it is forgeable.

        Tampered with: a request contained text that imitates AMI events. Forgeable: text of the sender may
        have chosen the address that the event names.
        """
        if event.tampered:
            self._alarms.activate(AlarmCode.EVIDENCE_TAMPERED, str(event.source), _TAMPERED)
        if event.forgeable and event.source.name == AMI:
            self._alarms.activate(AlarmCode.EVIDENCE_FORGEABLE, str(event.source), _FORGEABLE)

    def _change_alarm(self, change: AlarmChange) -> None:
        if change.cleared:
            self._alarms.clear(change.code, change.subject)
        else:
            self._alarms.activate(change.code, change.subject, change.text, change.lasts)
        if change.code is AlarmCode.EVIDENCE_UNPROVABLE:  # the kernel copies its conversation from now on
            self._friends.changed.set()

    def _report(self, judgement: Judgement) -> None:
        """Report a judgement to the listeners, and activate an alarm if its attempt is suspicious."""
        for listener in self._listeners:
            listener.on_judgement(judgement)
        attempt, disposition = judgement.attempt, judgement.disposition
        suspicious = attempt.event is EventKind.HIDDEN or attempt.forged_address is not None
        if not suspicious and disposition not in (Disposition.FORGED, Disposition.UNCONFIRMED):
            return
        address, activate = str(attempt.address), self._alarms.activate
        if attempt.forged_address is not None:
            text = FORGED_BY_TEXT.format(at=attempt.forged_address)
            activate(AlarmCode.EVIDENCE_FORGED_BY, address, text)
        elif disposition is Disposition.FORGED:
            activate(AlarmCode.EVIDENCE_FORGED, address, _FORGED)
        if attempt.event is EventKind.HIDDEN:
            # One alarm for all that a forger may have sent: its addresses must leave room for real senders.
            decision = judgement.decision
            proven = is_proven(attempt.proof) or (decision is not None and decision.scope in WHOLE_SCOPES)
            own = proven or self._friends.friends.has(attempt.address)
            activate(AlarmCode.EVIDENCE_HIDDEN, *((address, _HIDDEN) if own else ("", _HIDDEN_UNPROVEN)))
        if disposition is Disposition.UNCONFIRMED:
            activate(AlarmCode.EVIDENCE_UNCONFIRMED, address, _LISTED.format(why=why_unconfirmed(attempt)))


_FORGEABLE = (
    "an HTTP client can forge events inside the user name of a manager login, so events that came with one "
    "cause no ban by themselves; fix: webenabled = no in manager.conf [general] and manager reload; or, if "
    "it is needed, the eventfilter line of ringfence.manager.conf and systemctl restart ringfence"
)
_TAMPERED = "a request contained text that imitates AMI events; it counts as an attempt of its true sender"
_FORGED = (
    "a log line names this address, but Asterisk sent it nothing: a sender made Asterisk write that line, so "
    "it does not count"
)
_LISTED = "{why}, so it is listed and not banned"
_HIDDEN = "Asterisk answered its request and reported no event: the sender hides from Asterisk's events"
_HIDDEN_UNPROVEN = (
    "Asterisk answered requests and reported no event: senders hide from Asterisk's events. Their addresses "
    "are not proven, so somebody may have forged them; `ringfence status` counts the attempts"
)


# Module-level aliases: enum member lookups are slow in code that runs for each event.
_SIP, _UDP, _ENCRYPTED = Service.SIP, Transport.UDP, (Transport.TLS, Transport.WSS)


def known_sources(settings: Settings) -> KnownSources:
    """Return what the detector must know about the sources of each PBX, according to the configuration.

    This is: which PBXs have several sources, which have AMI or the wire (the kernel's copies of SIP packets)
    as a source, the addresses of the SIP proxies, and whether strangers may call.
    """
    return KnownSources(
        settings.several_sources(),
        settings.corroborated(),
        proxies=settings.proxies(),
        guests=settings.guests,
    )


class Pipeline(WireSink):
    """Passes the reports of the sources to ``detector``, and its results to ``effects``.

    The packets of the wire source count for the Asterisk with the name ``wire_asterisk``. ``connections`` is
    the detector's table of TCP connections; None if nothing refreshes it. Each of ``listeners`` gets the
    events of every other source; more may be added later.
    """

    def __init__(
        self,
        detector: Detector,
        effects: EffectHandler,
        clock: Clock,
        wire_asterisk: str,
        connections: ConnectionTable | None = None,
        listeners: list[EventListener] | None = None,
    ) -> None:
        self.wire_asterisk = wire_asterisk
        self.chan_sip_tls: set[str] = set()
        """The Asterisks whose chan_sip has reported a request over TLS or WSS."""
        self.events: dict[SourceId, dict[EventKind, int]] = {}
        """The number of events that AMI and each log have reported, by source and kind."""
        self.wire: Wire | None = None
        """The source of copied SIP packets (the *wire*); None if these are not read."""
        self.listeners = listeners if listeners is not None else []
        self._detector = detector
        self._effects = effects
        self._clock = clock
        self._connections = connections
        self._reporting: float | None = None  # since when all AMIs deliver events
        self._read = -inf  # up to when the events of all AMIs have been read

    def configure(self, new: Settings) -> None:
        """Apply a new configuration to the detector, and carry out the effects."""
        self.wire_asterisk = new.asterisk[0].name
        self._effects.carry_out(self._detector.configure(new.rule_table(), known_sources(new), new.claims()))

    def on_events(self, events: Sequence[SecurityEvent], now: float) -> None:
        """Judge the security events of AMI or a log, which arrived at ``now`` (monotonic seconds).

        The wire is read first, because a challenge that Asterisk sent before an event contains a nonce, and
        the sender's answer repeats it. This proves the sender's address only if the nonce was sent to no
        other address, and the challenges show to which addresses it was sent. If challenges wait unread, the
        latest nonces prove nothing.
        """
        if self.wire is not None and not self.wire.drain():
            self._detector.observe_backlog(now)
        ahead = self._clock.wall() - now
        for listener in self.listeners:
            listener.on_events(events)
        for event in events:
            kinds = self.events.get(event.source)
            if kinds is None:
                kinds = self.events[event.source] = dict.fromkeys(EventKind, 0)
            kinds[event.kind] += 1
            if event.kind is EventKind.SUCCESSFUL_AUTH:
                self._effects.enforcer.now()  # a login makes a friend until a time of the new clock
            if event.service is _SIP and event.remote.transport in _ENCRYPTED:
                self.chan_sip_tls.add(event.source.asterisk)
            if event.remote.transport is not _UDP or event.readings:
                for remote, least_bytes in self._detector.queries(event, now):
                    self._refresh(remote, least_bytes)
            self._effects.carry_out(self._detector.observe(event, now, ahead))
            if event.tampered or event.forgeable:
                self._effects.warn_of(event)

    def on_packets(self, seen: Sequence[CopiedAnswer | CopiedRequest | Exchange], now: float) -> None:
        """Judge SIP packets that the kernel copied to ringfence, in order, at ``now`` (monotonic seconds).

        ``seen`` has answers, requests of strangers, and signs of strangers' exchanges that cannot be read,
        such as those by TLS. An empty ``seen`` only shows the detector that copies are read.
        """
        for kind, group in groupby(seen, type):
            if kind is CopiedRequest:
                copied = [one for one in group if isinstance(one, CopiedRequest)]
                for request in copied:
                    if request.diverted and request.transport is not _UDP:
                        self._refresh(Endpoint(request.address, request.port, request.transport), GUESS)
                effects = self._detector.observe_requests(copied, now, self.wire_asterisk)
                self._effects.carry_out(effects)
            elif kind is Exchange:
                for one in group:
                    if isinstance(one, Exchange):
                        self._detector.observe_exchange(one, now)
                self._judge_exchanges(now)
            else:
                self._on_answers([one for one in group if isinstance(one, CopiedAnswer)], now)
        if not seen:
            self._on_answers((), now)

    def on_read(self, read: float) -> None:
        """Record that every AMI's events have been read up to ``read`` (monotonic seconds)."""
        self._read = read
        self._judge_exchanges(self._clock.mono())

    def _judge_exchanges(self, now: float) -> None:
        """Judge the unreadable requests, such as those by TLS, that have waited long enough for an event.

        ``now`` is in monotonic seconds. If some wait until AMI has been read further, ask every AMI.
        """
        effects = self._detector.judge_exchanges(
            now, self._clock.wall(), self.wire_asterisk, self._reporting, self._read
        )
        self._effects.carry_out(effects)
        if self.wire is not None and self._detector.waits_for_ami(now):
            self.wire.ask_amis()

    def _on_answers(self, answers: Sequence[CopiedAnswer], now: float) -> None:
        wall = self._clock.wall()
        for answer in answers:
            # Only these can be hidden attempts at once. Phones cause all others: reading the list of
            # connections for each would take too long.
            if answer.transport is not _UDP and (answer.evasive or answer.service is _SIP):
                self._refresh(Endpoint(answer.address, answer.port, answer.transport), GUESS)
        self._effects.carry_out(self._detector.observe_answers(answers, now, wall, self.wire_asterisk))

    def on_silence(self) -> None:
        """Record that Asterisk could not report a security event, as its log states."""
        self._detector.observe_silence(self._clock.mono())

    def on_gap(self, now: float) -> None:
        """Record that copies of packets were lost at ``now`` (monotonic seconds)."""
        self._detector.observe_loss(now)

    def _refresh(self, remote: Endpoint | None = None, least_bytes: int = 0) -> None:
        if self._connections is not None:
            self._connections.refresh(remote, least_bytes)

    def on_contact(self, contact: Contact, now: float) -> None:
        """Pass a change of a registered phone's address on to the detector; ``now`` is monotonic seconds."""
        self._effects.carry_out(self._detector.observe_contact(contact, now))

    def on_reload(self) -> None:
        """Unban the senders that Asterisk may know, since it has read its trunks again.

        Their bans followed from attempts whose source address nothing proves.
        """
        unban_known(self._effects.enforcer, self._detector.unidentified())

    def tick(self, *, wire: bool, listening: Mapping[str, float], all_report: bool = True) -> None:
        """Judge the attempts that have waited long enough for a report of another source.

        ``wire``: whether the wire source sees every challenge now. ``listening`` has the time since which
        each AMI delivers events (monotonic seconds), by the name of its Asterisk, if it does now.
        ``all_report``: every Asterisk is among these. Then log lines that AMI may still repeat wait until its
        events have been read that far, if a wire source can ask every AMI.
        """
        now = self._clock.mono()
        self._reporting = max(listening.values(), default=None) if all_report else None
        self._refresh()
        can_ask = self.wire is not None and self._reporting is not None
        self._detector.observe_read(self._read if can_ask else inf)
        effects = self._detector.tick(now, self._clock.wall(), wire=wire, listening=listening)
        self._effects.carry_out(effects)
        self._judge_exchanges(now)
        if self.wire is not None and self._detector.has_late_reports:
            self.wire.ask_amis()
