"""A pipeline with all its parts, without sources and without a firewall."""

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from attrs import evolve
from structlog.typing import EventDict
from tests.detect.events import SENDER, Connected
from tests.support.clock import SetClock
from tests.support.listening import connected
from tests.support.sources import Judgements

from ringfence.alarms import Alarms
from ringfence.bans.exempt import Exempt
from ringfence.detect.confirmation import PATIENCE, KnownSources
from ringfence.detect.detector import Detector
from ringfence.detect.rules import RULES
from ringfence.features.limiter.floods import Flooder, FloodJudge
from ringfence.guard.pipeline import EffectHandler, Pipeline
from ringfence.values.network import Address, Network
from ringfence.values.packet import CopiedAnswer

if TYPE_CHECKING:
    from ringfence.detect.judgement import Decision
    from ringfence.values.event import Endpoint

STRANGER = "203.0.113.9"
BY_NAME = {rule.name: rule for rule in RULES}
RULE = evolve(BY_NAME["guess"], attempts=2)


class Bench:
    """A pipeline with its parts. ``banned`` has the decisions that it carries out, ``judged`` all judgements.

    ``connected`` are the addresses with a TCP connection, ``logged`` the log. ``book.exempt`` are the exempt
    networks.
    """

    def __init__(self, logged: list[EventDict]) -> None:
        self.banned: list[Decision] = []
        self.judged = Judgements()
        self.connected: dict[Address, bool | None] = {}
        self.logged = logged
        self.now = 1_000.0
        clock = SetClock(wall=lambda: self.now, mono=lambda: self.now)
        self.detector = Detector(
            (RULE, BY_NAME["flood"]), sources=KnownSources(frozenset({"pbx"})), connections=Connected()
        )
        self.alarms = Alarms(clock)
        self.book = SimpleNamespace(exempt=Exempt())
        enforcer: Any = SimpleNamespace(
            carry_out=lambda *decisions: self.banned.extend(decisions), now=clock.wall, book=self.book
        )
        friends: Any = SimpleNamespace(friends=self.detector.friends, changed=asyncio.Event())
        self.effects = EffectHandler(enforcer, self.alarms, friends, [self.judged])
        self.refreshed: list[tuple[Endpoint | None, int]] = []
        connections: Any = SimpleNamespace(refresh=lambda *asked: self.refreshed.append(asked))
        self.pipeline = Pipeline(self.detector, self.effects, clock, "pbx", connections)
        self.flooders: Sequence[Flooder] = ()
        watch: Any = SimpleNamespace(new_flooders=lambda: self.flooders)
        self.floods = FloodJudge(watch, self.detector, self.connected.get, self.effects, clock)

    def flood(self, networks: Sequence[Network], *, at: float, tcp: bool = False) -> None:
        """Judge a second in which these networks exceeded the limit."""
        self.flooders = [Flooder(network, 1, tcp=tcp) for network in networks]
        before, self.now = self.now, at
        self.floods.check()
        self.now = before

    def tend(self, *, wire: bool = False) -> None:
        """Advance the clock past the wait for confirmation, and run a tick."""
        self.now += PATIENCE
        self.pipeline.tick(wire=wire, listening=connected(None))

    def alarm_codes(self) -> list[str]:
        """Return the codes of the alarms that were logged."""
        return [entry["event"].removeprefix("alarm.") for entry in self.logged]


def challenge(call_id: bytes = b"call-1", *, evasive: bool = False) -> CopiedAnswer:
    """Return a challenge that PJSIP sent to SENDER."""
    by = ip_address(SENDER)
    return CopiedAnswer(by, 5062, ip_address("198.18.0.1"), 5060, call_id, b"n", by, evasive)
