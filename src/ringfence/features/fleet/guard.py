"""The task that shares bans with other hosts: it connects the synchronisation with the daemon and the API.

Requests run in one thread, one after the other, so a hanging API delays nothing but them.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import structlog

from ringfence.alarm_codes import Alarm
from ringfence.alarms import Alarms
from ringfence.ban_facts import Over, Placed, Restored
from ringfence.clock import Clock
from ringfence.config.schema import Settings
from ringfence.control_server import Handler
from ringfence.features.fleet.alarms import FleetAlarmCode
from ringfence.features.fleet.channel import Channel, FleetError
from ringfence.features.fleet.decisions import key_of
from ringfence.features.fleet.denied import DecidedNetworks, Decisions
from ringfence.features.fleet.lapi import DecisionPage
from ringfence.features.fleet.messages import ORIGIN, facts_of, is_shared, rule_of, scenario_of
from ringfence.features.fleet.settings import CrowdsecSettings, Sharing
from ringfence.features.fleet.shared import SharedBan, SharedBans
from ringfence.features.fleet.sync import OwnBan, Pull, Push, Request, Sync, Withdraw
from ringfence.guard.feature import Fact, Feature, Given, Section
from ringfence.guard.request_fields import NONE, read
from ringfence.ledger import Ledger, ban_of
from ringfence.lists.texts import SHORTEST_FED, overlaps_local
from ringfence.plurals import counted
from ringfence.threads import Threads
from ringfence.values.ban import WHOLE_SCOPES, Ban
from ringfence.values.network import code_from, pack
from ringfence.values.text import printable, rfc3339

if TYPE_CHECKING:
    from ringfence.features.fleet.api import Api

QUIET_FOR = 30.0
"""Seconds without a successful request to the API, although one was sent, after which there is an alarm."""
GATHERED = 0.1
"""Seconds from a ban, or from its early end, to the request to the API about it.

So the bans of a burst share one request. The thread that sends requests starts only after the burst, and
does not delay the later bans.
"""
APPLIED_A_SECOND = 10_000
"""The number of applied decisions for each second until they are applied again.

The kernel takes seconds for a long list, and each change begins the list from the start. With thousands of
decisions, one ends nearly always, and the kernel would never get the whole list.
"""
LOSS_LASTS = 86_400.0
"""Seconds that the alarm lasts after a ban or an unban of this host was left out."""
MOST_ORIGINS = 1_000
"""The maximum number of origins of decisions in a report: those with the most decisions."""

_CROWDED = FleetAlarmCode.FLEET_FULL, "decisions"
"""The alarm that decisions of others find no room."""

Apply = Callable[[Decisions], Awaitable[None]]


def refusal_of(packed: int) -> str:
    """Return why another host's ban of a network (packed in a number) may not apply here; "" if it may."""
    version, code = code_from(packed)
    if code & 0xFF < SHORTEST_FED[version]:
        return f"wider than a /{SHORTEST_FED[version]}"
    return "a local network" if overlaps_local(version, code) else ""


REQUESTS = {"fleet": read(NONE, page=NONE)}


def _api_of(sharing: Sharing, clock: Clock) -> "Api":
    """Return a client of the local API.

    This loads HTTP and TLS, because a running daemon may be unable to open their files.
    """
    from ringfence.features.fleet.api import Api  # noqa: PLC0415 - HTTP and TLS take memory, and few use them

    return Api(sharing.access, clock)


class Fleet(Feature):
    """Shares bans with other hosts while :meth:`run` runs; without ``sharing`` it does nothing.

    ``ledger`` has the bans of this host. ``shared`` keeps which of them the API may have, so that a restart
    loses no unban. ``alarms`` shows if bans or unbans were left out. ``apply`` puts the decisions of others
    into the kernel, ``most`` is their maximum number.

    Without ``enforces`` (a dry run) no ban is sent: other hosts must not enforce what this one only tries.
    An unban still ends what this host sent before the dry run.
    """

    def __init__(
        self,
        sharing: Sharing | None,
        shared: SharedBans,
        ledger: Ledger,
        clock: Clock,
        alarms: Alarms,
        apply: Apply,
        most: int,
        *,
        enforces: bool = True,
    ) -> None:
        self._sharing = sharing
        self._enforces = enforces
        self._api = None if sharing is None else _api_of(sharing, clock)
        self._shared = shared
        self._ledger = ledger
        self._clock = clock
        self._alarms = alarms
        self._apply = apply
        chance = random.Random()  # noqa: S311 - jitter, no secret
        interval = sharing.interval if sharing else 0.0
        self._sync = Sync(interval, most, refusal_of, chance=chance, sends=enforces)
        self._applied: Decisions = ()
        self._changed = False  # whether other decisions apply than those in ``_applied``
        self._apply_at = -inf  # monotonic seconds
        self._lost = 0  # how many left out bans and unbans the alarm has reported
        self._turned_away = 0  # how many losses of others' decisions the alarm has reported
        self._thread = Threads(1, "fleet")
        self._wake = asyncio.Event()
        self._log = structlog.get_logger()

    def handlers(self) -> Mapping[str, Handler]:
        """Return the handlers of the feature's requests on the control socket, by the request's name."""
        return {"fleet": lambda _: self.report()}

    def threads(self) -> list[Threads]:
        """Return the thread that sends requests; none without a local API."""
        return [] if self._sharing is None else [self._thread]

    # -- what the daemon reports

    def on_fact(self, fact: Fact) -> None:
        """Queue new bans on proven attempts for the API, and the end of a ban if it ends everywhere.

        A new configuration may change how many decisions of others have room.
        """
        if self._sharing is None:
            return
        if isinstance(fact, Placed):
            for ban in filter(is_shared, fact.bans):
                self._sync.on_ban(self._own(ban))
        elif isinstance(fact, Restored) and self._enforces:
            self._sync.on_restored(self._own(ban) for ban in fact.bans if is_shared(ban))
        elif isinstance(fact, Over) and fact.how.is_everywhere and fact.scope in WHOLE_SCOPES:
            self._sync.on_unban(fact.network, self._clock.mono())
        elif isinstance(fact, Settings):
            self._sync.set_most(fact.firewall.max_bans)
        else:
            return
        self._wake.set()

    def _own(self, ban: Ban) -> OwnBan:
        now = self._clock.mono()
        ahead = now - self._clock.wall()
        return OwnBan(ban.network, ban.rule, ban.expires + ahead, facts_of(ban), now, ban.since + ahead)

    # -- the task

    def jobs(self) -> list[Coroutine[None, None, None]]:
        """Return the coroutine that shares bans with other hosts."""
        return [self.run()]

    async def run(self) -> None:
        """Share bans with other hosts until cancelled. Return at once if no local API is configured."""
        api = self._api
        if api is None:
            self._alarms.clear(*_CROWDED)  # a run before may have set it
            return
        wall, ahead = self._clock.wall(), self._clock.mono() - self._clock.wall()
        if self._enforces:
            running = (ban_of(key, record) for key, record in self._ledger.items())
            self._sync.on_restored(self._own(ban) for ban in running if is_shared(ban))
            known: list[SharedBan] = []
        else:
            known = self._shared.running(wall)
        ended = self._shared.ended(wall)
        # An unban of the network ends these at the API too.
        known += (one for one in ended if not one.removed)
        self._sync.on_restored(OwnBan(one.network, one.rule, one.expires + ahead) for one in known)
        self._sync.on_unfinished(
            (key_of(pack(one.network), scenario_of(one.rule)), one.expires + ahead)
            for one in ended
            if one.removed
        )
        try:
            while True:
                self._changed |= await self._step(api)
                if self._changed and self._apply_at <= self._clock.mono():
                    self._changed, self._applied = False, self._sync.in_force()
                    await self._apply(self._applied)
                    self._apply_at = self._clock.mono() + len(self._applied) / APPLIED_A_SECOND
                self._report_losses()
        finally:
            api.stop()
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _report_losses(self) -> None:
        """Activate an alarm if further bans or unbans of this host were left out; a dismissed one returns.

        So does the one about others' decisions if further ones find no room. It ends when all have room, also
        if it was restored.
        """
        sync = self._sync
        if sync.lost > self._lost:
            self._lost = sync.lost
            text = "bans or unbans of this host were left out: no room, or the API refused them"
            self._alarms.activate(FleetAlarmCode.FLEET_FULL, "", text, LOSS_LASTS)
        if sync.turned_away > self._turned_away:
            self._turned_away = sync.turned_away
            self._alarms.show_again(*_CROWDED)
        if sync.pull.last is not None and not sync.left.crowded:
            self._alarms.clear(*_CROWDED)

    async def _step(self, api: "Api") -> bool:
        """Send the next request to the API, or wait until one is due.

        Return whether the bans of other hosts that apply here have changed.
        """
        self._wake.clear()
        now = self._clock.mono()
        changed = self._sync.expire(now)
        while self._sync.ending(now):
            await asyncio.sleep(0)
            changed |= self._sync.expire(now)
        request = self._sync.next_request(now)
        if request is not None:
            changed |= await self._send(api, request, now)
        else:
            due = self._sync.due()
            if changed or self._changed:
                due = min(due, self._apply_at)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due - now)):
                    await self._wake.wait()
                    await asyncio.sleep(GATHERED)
        return changed

    async def _send(self, api: "Api", request: Request, now: float) -> bool:
        """Send a request to the API at ``now`` (monotonic seconds), and record its result.

        Return whether bans of others have changed.
        """
        channel = self._sync.pull if isinstance(request, Pull) else self._sync.push
        before = channel.error
        known = {before} if isinstance(request, Pull) else {before, self._sync.retry.error}
        loop = asyncio.get_running_loop()
        if isinstance(request, Push):  # even a failed request may have arrived
            self._shared.share((ban.network, ban.rule) for ban in request.bans)
        try:
            page = await loop.run_in_executor(self._thread, partial(api.send, request, now))
        except FleetError as error:
            self._sync.on_failed(request, str(error), self._clock.mono(), error.pause, refused=error.refused)
            if str(error) not in known:
                self._log.warning("fleet.failed", request=type(request).__name__.lower(), error=str(error))
            return False
        if before:
            self._log.info("fleet.works", request=type(request).__name__.lower())
        if isinstance(request, Pull):
            changed = False
            for step in self._sync.on_page(page or DecisionPage(), request, self._clock.mono()):
                changed |= step
                await asyncio.sleep(0)
            return changed
        self._sync.on_done(request, self._clock.mono())
        if isinstance(request, Withdraw):
            self._shared.unshare(request.network, rule_of(request.scenario))
        return False

    # -- what people see

    def alarms(self) -> list[Alarm]:
        """Return the present alarms about sharing bans."""
        return [] if self._sharing is None else [*self._present_alarms()]

    def _present_alarms(self) -> Iterator[Alarm]:
        sync, now = self._sync, self._clock.mono()
        for name, channel in (("pull", sync.pull), ("push", sync.push)):
            problem = channel.problem(now, QUIET_FOR)
            if problem:
                yield Alarm(FleetAlarmCode.FLEET_FAILED, name, problem)
        problem = sync.retry.problem(now, QUIET_FOR) if sync.failing else ""
        if problem and not sync.push.problem(now, QUIET_FOR):  # otherwise everything fails
            failing = counted(sync.failing, "ban or unban fails", "bans and unbans fail")
            text = f"{failing} again and again: {problem}"
            yield Alarm(FleetAlarmCode.FLEET_FAILED, "retry", text)
        if sync.left.crowded:
            named = ", ".join(sync.left.named)
            text = f"{sync.left.crowded} decisions of others found no room; left out, among others: {named}"
            yield Alarm(*_CROWDED, text)

    def section(self) -> Section:
        """Return the state of sharing bans, for the status."""
        return Section(more={"fleet": self.state()})

    def report(self) -> dict[str, Any]:
        """Return :meth:`state` with the number of decisions of each origin; {} without a local API."""
        state, origins = self.state(), self._sync.origins().most_common(MOST_ORIGINS)
        rows = [_origin(name) | {"decisions": number} for name, number in origins]
        return state and state | {"origins": rows}

    def state(self) -> dict[str, Any]:
        """Return the state of sharing bans as JSON values, with RFC 3339 times in UTC; {} without an API."""
        if self._sharing is None:
            return {}
        sync = self._sync
        return {
            "url": self._sharing.access.url,
            "machine": self._sharing.access.machine,
            "sends": self._enforces,
            "pull": self._channel(sync.pull),
            "push": self._channel(sync.push),
            "waiting": sync.waiting,
            "failing": sync.failing,
            "decisions": len(sync),
            "in_force": len(self._applied),
            "left_out": sync.left.number,
            "left_out_named": sync.left.named,
            "lost": sync.lost,
            "lag": round(sync.lag, 1) if sync.lag is not None else None,
        }

    def _channel(self, channel: Channel) -> dict[str, Any]:
        ago = self._clock.mono() - channel.last if channel.last is not None else None
        last = rfc3339(self._clock.wall() - ago) if ago is not None else None
        problem = channel.error or channel.problem(self._clock.mono(), QUIET_FOR)
        return {"last": last, "ago": round(ago, 1) if ago is not None else None, "problem": problem}


def _origin(name: str) -> dict[str, str]:
    """Split the origin of a decision, and return its parts as ``origin`` and ``node``.

    ``node`` is the host whose ringfence made the decision; "" if another program made it.
    """
    if name.startswith(ORIGIN):
        return {"origin": ORIGIN[:-1], "node": printable(name.removeprefix(ORIGIN))}
    return {"origin": printable(name), "node": ""}


def build(given: Given) -> Fleet:
    """Return the feature that shares bans; it does nothing if no local API is configured."""
    side, settings = given.side, given.reloader.settings
    store, ledger, clock = side.common.store, side.detector.bans, side.common.clock
    shared = SharedBans(store.connection, store.best_effort)
    lists, most = side.exempt.lists, settings.firewall.max_bans
    [decided] = (other for other in lists.others if isinstance(other, DecidedNetworks))
    apply, sharing = partial(decided.apply, lists), settings.of(CrowdsecSettings).sharing
    alarms, enforces = side.common.alarms, side.kernel.backend.enforces
    return Fleet(sharing, shared, ledger, clock, alarms, apply, most, enforces=enforces)
