"""Transcripts: what the sources report, and when, played through the detector's public interface.

Of all tests of detection, only this module knows how the detector is built and driven. A transcript is a list
of steps in order of time (:func:`at`, :func:`ticks`), and :meth:`Player.play` returns what follows from it as
text. Nothing enforces a ban, unless the transcript does (:class:`Banned`).

Times in a transcript are seconds since it began. The guard's clocks run ahead of them by different amounts,
so that a mistaken clock shows.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network

from attrs import Factory, define, evolve, frozen
from tests.support.listening import connected

from ringfence.detect.confirmation import KnownSources
from ringfence.detect.detector import Bounds, Detector
from ringfence.detect.judgement import (
    Disposition,
    Effect,
    Estranged,
    Guest,
    Judgement,
    Login,
    Observe,
    Pinging,
)
from ringfence.detect.rules import HOUR, RULES, Claimed
from ringfence.detect.sessions import MAX_SESSIONS
from ringfence.ledger import Record, key_of
from ringfence.values.alarm import AlarmChange
from ringfence.values.attempt import Proof
from ringfence.values.ban import Ban, Scope
from ringfence.values.event import Endpoint, EventKind, SecurityEvent
from ringfence.values.friend import Contact, Friend, FriendReason
from ringfence.values.network import Address, Network, NetworkSet
from ringfence.values.packet import CopiedAnswer, CopiedRequest

PBX = "pbx"
EPOCH = 1_700_006_400.0
"""The wall clock when a transcript begins (seconds since the epoch)."""

UPTIME = 1_000_000.0
"""The monotonic clock when a transcript begins (seconds)."""

_DISPOSITIONS = {
    Disposition.COUNTED: "counted",
    Disposition.FRIEND: "counted as a friend's",
    Disposition.EXEMPT: "exempt",
    Disposition.UNCONFIRMED: "unconfirmed",
    Disposition.FORGED: "forged",
    Disposition.LATE: "late",
    Disposition.NO_RULE: "of no rule",
}
_PROOFS = {Proof.CLAIMED: "claimed", Proof.NONCE: "proven by nonce", Proof.HANDSHAKE: "proven by handshake"}
_COUNTED = ("counted", "counted as a friend's")


@frozen
class Tick:
    """A call of the daemon's periodic work."""


@frozen
class Loss:
    """The wire lost packets."""


@frozen
class Backlog:
    """The wire has packets that nobody has read yet."""


@frozen
class Sources:
    """Which sources deliver from now on: AMI, and a wire that sees every challenge."""

    ami: bool = True
    wire: bool = True


@frozen
class Banned:
    """The firewall enforces a ban from now on, for so many seconds."""

    network: str
    seconds: float
    scope: Scope = Scope.FULL


@frozen
class Unbanned:
    """The administrator ends the bans of a network."""

    network: str


@frozen
class Exempt:
    """These networks, and no others, are exempt from now on."""

    networks: tuple[str, ...]


Entry = (
    SecurityEvent
    | CopiedAnswer
    | CopiedRequest
    | Contact
    | Friend
    | Tick
    | Loss
    | Backlog
    | Sources
    | Banned
    | Unbanned
    | Exempt
)
"""One line of a transcript. A friend's times are seconds since the transcript began."""


@frozen
class Step:
    """The entries of one moment. Those of the wire arrive as one batch."""

    time: float
    entries: tuple[Entry, ...]


def at(time: float, *entries: Entry) -> Step:
    """Return a step whose events happened at ``time`` plus their own time, which is 0 by default."""
    return Step(
        time,
        tuple(
            evolve(entry, time=EPOCH + time + entry.time) if isinstance(entry, SecurityEvent) else entry
            for entry in entries
        ),
    )


def ticks(first: float, last: float, every: float = 1.0) -> Iterator[Step]:
    """Yield the ticks of the daemon from ``first`` to ``last``."""
    number = int((last - first) / every) + 1
    yield from (at(first + index * every, Tick()) for index in range(number))


@define
class Happened:
    """The effects of a transcript, in order.

    ``attempts`` holds lines such as ``192.0.2.7 counted, claimed``, ``bans`` such as ``guess bans
    192.0.2.7/32 in full after 5``, ``alarms`` such as ``attack.distributed of 204 of pbx``, with
    ``is over`` at its end. ``hidden`` holds the addresses of hidden attempts that are not proven.
    """

    attempts: list[str] = Factory(list)
    bans: list[str] = Factory(list)
    alarms: list[str] = Factory(list)
    hidden: list[str] = Factory(list)

    @property
    def counted(self) -> int:
        """The number of counted attempts."""
        return len(self.counted_addresses)

    @property
    def counted_addresses(self) -> list[str]:
        """The address of each attempt that was counted."""
        return [address for address, disposition in self._dispositions() if disposition in _COUNTED]

    def of(self, disposition: str) -> list[str]:
        """Return the address of each attempt with this disposition."""
        return [address for address, each in self._dispositions() if each == disposition]

    def _dispositions(self) -> Iterator[tuple[str, str]]:
        for line in self.attempts:
            address, _, rest = line.partition(" ")
            yield address, rest.split(", ")[0]


class Player:
    """A detector that plays transcripts.

    ``sources`` are those of its Asterisks, PBX and ``others``. ``connected`` are the remote ends of the TCP
    connections that the kernel knows. ``ami_for`` is how long AMI has delivered when the transcript begins
    (seconds). ``rules`` are the only rules that are on (None: all); ``changed`` gives a rule other values.
    ``firewall``: a kernel confirms the bans. Otherwise they are assumed, as in a replay. At most so many
    ``sessions`` are remembered.
    """

    def __init__(
        self,
        *,
        sources: Collection[str] = ("AMI", "log", "wire"),
        connected: Iterable[tuple[str, int]] = (),
        ami_for: float = 86_400.0,
        rules: Collection[str] | None = None,
        changed: Mapping[str, Mapping[str, object]] | None = None,
        claimed_per_minute: int = 600,
        firewall: bool = False,
        others: Collection[str] = (),
        sessions: int = MAX_SESSIONS,
    ) -> None:
        pbxs = frozenset({PBX, *others})
        self._detector = Detector(
            tuple(
                evolve(
                    rule,
                    enabled=rules is None or rule.name in rules,
                    **(changed or {}).get(rule.name, {}),  # type: ignore[arg-type]  # a rule's own fields
                )
                for rule in RULES
            ),
            sources=KnownSources(
                several=pbxs if {"log", "wire"} & {*sources} else frozenset(),
                corroborated=pbxs if {"AMI", "wire"} & {*sources} else frozenset(),
            ),
            connections=_Connections(connected),
            claimed=Claimed(per_minute=claimed_per_minute),
            bounds=Bounds(sessions=sessions),
        )
        self._detector.bans.offset = EPOCH - UPTIME
        self._wire = "wire" in sources
        self._ami_since = UPTIME - ami_for if "AMI" in sources else None
        self._now = UPTIME
        self._happened = Happened()
        self._firewall = firewall
        if "wire" in sources:
            self._detector.observe_answers((), self._now, EPOCH, PBX)
        self._tick()

    def play(self, *steps: Step | Iterable[Step]) -> Happened:
        """Play steps, and return what follows from them."""
        self._happened = Happened()
        for group in steps:
            for step in (group,) if isinstance(group, Step) else group:
                assert UPTIME + step.time >= self._now, "a transcript goes forward in time"
                self._now = UPTIME + step.time
                self._play(step.entries)
        return self._happened

    # -- what the detector knows afterwards -------------------------------------------------------------

    def is_friend(self, address: str) -> bool:
        """Whether an address is a friend."""
        return self._detector.friends.has(ip_address(address))

    def unidentified(self) -> list[str]:
        """Return the claimed bans of strangers that may be carriers: their networks and scopes."""
        return [f"{network} {scope}" for network, scope in self._detector.unidentified()]

    def pinging(self) -> list[Pinging]:
        """Return the hosts that ask again and again without credentials."""
        return self._detector.pinging()

    def guests(self) -> list[Guest]:
        """Return the strangers whose calls Asterisk takes without a password."""
        return self._detector.guests(self._now)

    def not_passed(self) -> set[str]:
        """Return the friends that the limiter must not pass now."""
        return {str(address) for address in self._detector.unshielded(self._now)}

    def observed(self) -> set[str]:
        """Return the friends whose conversations the kernel must copy now."""
        return {str(address) for address in self._detector.observed(self._now)}

    def sources_of(self, address: str) -> list[set[str]]:
        """Return the sources that reported each attempt of an address."""
        story = self._detector.summary_of(ip_address(address), self._now)
        return [set(attempt.sources) for attempt in story.attempts]

    def remembered(self, address: str) -> int:
        """Return the number of attempts of an address that the detector remembers."""
        return len(self._detector.summary_of(ip_address(address), self._now).attempts)

    # -- playing ----------------------------------------------------------------------------------------

    @property
    def _wall(self) -> float:
        return self._now - UPTIME + EPOCH

    def _play(self, entries: tuple[Entry, ...]) -> None:
        challenges: list[CopiedAnswer] = []
        for entry in entries:
            if isinstance(entry, CopiedAnswer):
                challenges.append(entry)
                continue
            self._see(challenges)
            self._enter(entry)
        self._see(challenges)

    def _see(self, challenges: list[CopiedAnswer]) -> None:
        if challenges:
            self._follows(self._detector.observe_answers(challenges, self._now, self._wall, PBX))
            challenges.clear()

    def _enter(self, entry: Entry) -> None:
        detector = self._detector
        if isinstance(entry, SecurityEvent):
            self._follows(detector.observe(entry, self._now))
        elif isinstance(entry, CopiedRequest):
            self._follows(detector.observe_requests([entry], self._now, PBX))
        elif isinstance(entry, Contact):
            self._follows(detector.observe_contact(entry, self._now))
            self._befriend(entry)
        elif isinstance(entry, Tick):
            self._tick()
        else:
            self._set(entry)

    def _set(self, entry: object) -> None:
        detector = self._detector
        if isinstance(entry, Friend):
            times = {name: EPOCH + getattr(entry, name) for name in ("since", "seen", "until")}
            detector.friends.add(evolve(entry, **times))
        elif isinstance(entry, Loss):
            detector.observe_loss(self._now)
        elif isinstance(entry, Backlog):
            detector.observe_backlog(self._now)
        elif isinstance(entry, Sources):
            self._wire = entry.wire
            since = self._now if self._ami_since is None else self._ami_since
            self._ami_since = since if entry.ami else None
        elif isinstance(entry, Banned):
            self._ban(ip_network(entry.network), entry.seconds, entry.scope)
        elif isinstance(entry, Unbanned):
            detector.bans.discard_assumed(ip_network(entry.network))
            detector.record_unban(ip_network(entry.network))
        else:
            assert isinstance(entry, Exempt)
            detector.exempt = NetworkSet(ip_network(network) for network in entry.networks)

    def _befriend(self, contact: Contact) -> None:
        """Make the address of a contact a friend, like the friend registry, if its account may."""
        if contact.gone:
            return
        times = self._wall, self._wall, self._wall + HOUR
        friend = Friend(contact.asterisk, contact.address, contact.account, FriendReason.REGISTERED, *times)
        if self._detector.friends.admit(friend):
            self._detector.friends.add(friend)

    def _ban(self, network: Network, seconds: float, scope: Scope) -> None:
        bans, until = self._detector.bans, self._wall + seconds
        if self._firewall:
            ban = Ban(network, since=self._wall, expires=until, rule="guess", scope=scope)
            bans.put(key_of(network, scope), Record.of(ban))
        else:
            bans.assume(network, scope, until)

    def _tick(self) -> None:
        self._detector.friends.expire(self._wall)
        self._follows(
            self._detector.tick(self._now, self._wall, wire=self._wire, listening=connected(self._ami_since))
        )

    def _follows(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Judgement):
                self._judged(effect)
            elif isinstance(effect, Login):
                if effect.befriends:
                    self._detector.friends.add(effect.friend)
            elif not isinstance(effect, (Observe, Estranged)):
                self._alarmed(effect)

    def _judged(self, judgement: Judgement) -> None:
        happened = self._happened
        attempt, decision = judgement.attempt, judgement.decision
        if judgement.disposition is not Disposition.COUNTED_BEFORE:
            disposition, proof = _DISPOSITIONS[judgement.disposition], _PROOFS[attempt.proof]
            happened.attempts.append(f"{attempt.address} {disposition}, {proof}")
            if attempt.event is EventKind.HIDDEN and attempt.proof is Proof.CLAIMED:
                happened.hidden.append(str(attempt.address))
        if decision is not None:
            scope = "in full" if decision.scope is Scope.FULL else f"by {decision.scope}"
            length = "" if decision.seconds is None else f" for {decision.seconds:.0f} s"
            happened.bans.append(
                f"{decision.rule.name} bans {decision.subject} {scope}{length} after {len(decision.attempts)}"
            )

    def _alarmed(self, change: AlarmChange) -> None:
        subject = f" of {change.subject}" if change.subject else ""
        self._happened.alarms.append(f"{change.code}{subject}{' is over' if change.cleared else ''}")


class _Connections:
    """The TCP connections that the kernel knows."""

    def __init__(self, remotes: Iterable[tuple[str, int]]) -> None:
        self._remotes = {(ip_address(address), port) for address, port in remotes}

    def has(self, remote: Endpoint, now: float) -> bool:
        """Whether that address and port has a connection."""
        return (remote.address, remote.port) in self._remotes

    def backs(self, remote: Endpoint, length: int, now: float) -> bool:
        """Whether that address and port has a connection."""
        return self.has(remote, now)

    def had_any(self, address: Address, now: float) -> bool:
        """Whether that address has any connection."""
        return any(address == known for known, _ in self._remotes)
