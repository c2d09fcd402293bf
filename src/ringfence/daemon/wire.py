"""The wire source in a running daemon: it reads the SIP challenges that this host or its containers send."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.bans.enforcer import Enforcer
from ringfence.clock import Clock
from ringfence.daemon.pipeline import Pipeline
from ringfence.daemon.status import WITHOUT_WIRE
from ringfence.detect.detector import Detector
from ringfence.errors import HostError
from ringfence.host.bridges import follow_containers
from ringfence.model import Address, Network, printable
from ringfence.sources.state import Condition, State
from ringfence.sources.wire import WireSource

if TYPE_CHECKING:
    from ringfence.sources.ami import AmiSource

_UNKNOWN_USER = (
    "the user of Asterisk's sockets is unknown, so answers of this host do not count; fix: let AMI listen on "
    "this host with its own port"
)
_UNKNOWN_ADDRESS = (
    "the address of Asterisk's container is unknown, so answers of containers do not count; fix: host of "
    "[asterisk.ami] = the container's address"
)
RENEW = 60.0
"""Seconds after which the users of Asterisk's sockets are looked up again."""
RENEW_FOREIGN = 2.0
"""The same for an answer of another user: Asterisk may have started again, under another user."""


class AnswerUsers:
    """The users whose sockets send Asterisk's answers, and those of the configured SIP proxies.

    ``find`` looks them up, and returns the empty set if they are unknown. ``changed`` is called after each
    change, with the monotonic time.
    """

    def __init__(
        self, find: Callable[[], frozenset[int]], changed: Callable[[float], object], clock: Clock
    ) -> None:
        self.users: frozenset[int] = frozenset()
        self._find = find
        self._changed = changed
        self._clock = clock
        self._found_at = -RENEW

    def has(self, user: int) -> bool | None:
        """Whether answers of this user count; None if it is unknown which users are Asterisk's."""
        now = self._clock.mono()
        age = now - self._found_at
        if age >= RENEW or (age >= RENEW_FOREIGN and user not in self.users):
            found = self._find()
            self._found_at = now
            if found != self.users:
                self.users = found
                self._changed(now)
        return user in self.users if self.users else None


class WireReader:
    """Runs the wire source, and keeps its list of the networks of containers up to date.

    ``find_users`` returns the users of the sockets of Asterisk and of the configured SIP proxies.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        detector: Detector,
        enforcer: Enforcer,
        clock: Clock,
        find_users: Callable[[], frozenset[int]],
    ) -> None:
        self.users = AnswerUsers(find_users, self._on_users, clock)
        self.source = WireSource(
            pipeline.on_challenges,
            detector.observe_loss,
            is_asterisks=self.users.has,
            is_container=self._is_container,
        )
        self._amis: Sequence[AmiSource | None] = ()
        self._detector = detector
        self._pipeline = pipeline
        self._enforcer = enforcer
        self._clock = clock
        self._error = ""
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Read challenges, and follow the networks of containers, until cancelled."""
        # This call without challenges shows the detector that the wire is read. Otherwise an event of AMI
        # that arrives before the first challenge would be judged as if there were no wire.
        self._pipeline.on_challenges((), self._clock.mono())
        async with asyncio.TaskGroup() as group:
            group.create_task(self.source.run(), name="wire")
            group.create_task(follow_containers(self.set_containers, self._failed))

    def drain(self) -> None:
        """Read the packets that have arrived, so that they count before the next events of other sources."""
        self.source.drain()

    @property
    def condition(self) -> Condition:
        """The state of the wire source, such as ``listening``, with a detail."""
        return self.source.condition

    @property
    def is_listening(self) -> bool:
        """Whether the wire source reads challenges now."""
        return self.condition.state is State.LISTENING

    @property
    def sees_all(self) -> bool:
        """Whether the wire source reads every challenge over UDP now.

        The wire source must be listening. The firewall must guard both IP versions, and have the rules that
        copy challenges to the wire source. The list of the containers' networks must be readable.
        """
        opened = self._enforcer.opened
        return (
            self.is_listening
            and opened is not None
            and not opened.wire
            and all(trouble is None for trouble in opened.families.values())
            and not self._error
        )

    @property
    def alarms(self) -> list[Alarm]:
        """The alarms about the wire source, and about the networks of containers."""
        found = [Alarm(AlarmCode.HOST_UNREADABLE, "containers", self._error)] if self._error else []
        opened = self._enforcer.opened
        if opened is not None and opened.wire:
            text = f"the wire sees nothing: {opened.wire}; {WITHOUT_WIRE}"
            found.append(Alarm(AlarmCode.WIRE_BLIND, "", text))
        elif self.source.counts.unowned and not self.users.users:
            found.append(Alarm(AlarmCode.WIRE_USER, "", _UNKNOWN_USER))
        elif self.source.counts.unnamed and any(ami is None or ami.addresses is None for ami in self._amis):
            found.append(Alarm(AlarmCode.WIRE_USER, "containers", _UNKNOWN_ADDRESS))
        elif self.condition.state not in (State.LISTENING, State.CONNECTING):
            why = printable(self.condition.detail) or str(self.condition.state)
            found.append(Alarm(AlarmCode.WIRE_BLIND, "", f"the wire is not seen: {why}; {WITHOUT_WIRE}"))
        return found

    def set_asterisks(self, amis: "Sequence[AmiSource | None]") -> None:
        """Use ``amis`` as the AMI sources of all Asterisks from now on; None for one without AMI."""
        self._amis = amis

    def _is_container(self, address: Address) -> bool | None:
        """Whether a container's address is Asterisk's; None if AMI names no address of some Asterisk."""
        found = [ami.addresses if ami is not None else None for ami in self._amis]
        if any(address in one for one in found if one is not None):
            return True
        return None if not found or None in found else False

    def _on_users(self, now: float) -> None:
        """Record that the users of Asterisk's sockets have changed: answers in between did not count."""
        self._detector.observe_loss(now)
        self._log.info("wire.users", users=sorted(self.users.users))

    def set_containers(self, networks: frozenset[Network]) -> None:
        """Use ``networks`` as the networks of containers from now on."""
        self._error = ""
        if networks != frozenset(self.source.containers):
            self.source.set_containers(networks)
            self._log.info("host.containers", networks=[str(network) for network in self.source.containers])

    def _failed(self, error: HostError) -> None:
        self._error = str(error)
        self._log.error("host.failed", error=str(error))
