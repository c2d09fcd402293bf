"""The fence at the firewall: whether it drops, temporary admissions, and senders from outside.

The fence drops what strangers send to the SIP ports (``firewall/contract.py``). It must not cut off the
phones of this PBX, so it drops nothing before it has observed for a day (``OBSERVED_FOR``). While it runs, it
records each phone that became a friend although the fence would have dropped its packets: it came from
*outside*. An administrator then starts the fence, as a trial: without a confirmation before the end of the
trial, the fence only observes again. The state is one fact of the database, so it survives a restart of the
daemon. Only an unconfirmed trial does not: it ends when the daemon stops.

Ports of other services (``also`` of ``[fence]``) are closed by a trial too. If the configuration adds a port
to a confirmed fence, the fence only counts there until another trial. That one ends only at the new ports.
"""

import json
import math
from collections.abc import Collection, Iterator
from contextlib import suppress
from ipaddress import ip_network
from itertools import chain
from typing import Any

import structlog
from attrs import asdict, define, evolve, field, frozen

from ringfence.alarm_codes import Alarm
from ringfence.ban_facts import ClockSet
from ringfence.clock import before_step, format_duration
from ringfence.config.schema import Settings
from ringfence.errors import ControlError
from ringfence.explain.facts import Admission
from ringfence.features.fence.alarms import FenceAlarmCode
from ringfence.features.fence.network_list import LIST as INSIDE
from ringfence.features.fence.settings import FenceSettings, ports_of
from ringfence.features.fence.stage import ALSO_OUTSIDERS, OUTSIDERS, FenceFilter
from ringfence.firewall import network_lists
from ringfence.firewall.cleanup import flush_everything
from ringfence.firewall.contract import FirewallPlan
from ringfence.firewall.limits import LimitMode
from ringfence.firewall.network_lists import PASSING
from ringfence.guard.firewall_manager import RulePart
from ringfence.guard.firewall_side import FirewallSide
from ringfence.lists.entries import EntryKind, EntryValue, parse_entry
from ringfence.store.database import Store
from ringfence.values.friend import Friend, FriendReason
from ringfence.values.network import SHORTEST, Network, contains, overlap
from ringfence.values.text import printable, rfc3339

OBSERVED_FOR = 86_400.0
"""Seconds (a day) for which the fence must only count packets from outside before it may drop them."""
WATCHED_STEP = 300.0
"""The seconds after which the time for which the fence has observed is saved again."""
TRIAL_FOR = 900.0
"""Seconds that a trial of the fence lasts by default."""
MOST_OUTSIDE, MOST_ADMITTED = 256, 256
MOST_PLACES = 3
"""The maximum number of addresses that a lasting link admits at once. A further one ends the oldest one."""
_ADMITTING = frozenset({network_lists.ALLOW, INSIDE, *PASSING})
"""The lists of networks that the kernel must have completely before the fence may drop all others."""
_CAME = {FriendReason.AUTHENTICATED, FriendReason.REGISTERED, FriendReason.REACHABLE}
"""The reasons for being a friend that show that the phone or trunk has sent a packet to a SIP port."""
_FACT = "fence"

# -- the state that a restart must not lose: one fact of the database, as JSON


@frozen
class Outside:
    """A known phone or trunk outside the fence: why it is a friend, and since when (epoch seconds)."""

    account: str
    address: str
    reason: str
    since: float


@frozen
class Admitted:
    """An address, a network or a host name that the fence admits from a time to another one (epoch seconds).

    ``link`` is the account whose lasting link admitted it; "" if an administrator or a link for one use did.
    """

    what: str
    until: float
    link: str = ""
    since: float = 0.0


@define
class FenceState:
    """The state of the fence as the database keeps it. Times are in seconds since the epoch.

    ``observed`` is when the fence began to observe, ``trial`` the end of the trial; each None if not so.
    ``watched``: for how many seconds it has observed or dropped since then, while the daemon ran. ``also``
    are the ports of other services that were confirmed, and ``ssh`` those at which SSH answered last.
    """

    observed: float | None = None
    watched: float = 0.0
    trial: float | None = None
    confirmed: bool = False
    outside: list[Outside] = field(factory=list)
    admitted: list[Admitted] = field(factory=list)
    also: list[str] = field(factory=list)
    ssh: list[str] = field(factory=list)

    @classmethod
    def parse(cls, text: str | None) -> "FenceState":
        """Parse the recorded state (JSON); return a new state if ``text`` is None or damaged."""
        try:
            found = json.loads(text or "{}")
            return cls(
                None if found.get("observed") is None else float(found["observed"]),
                float(found.get("watched", 0.0)),
                None if found.get("trial") is None else float(found["trial"]),
                found.get("confirmed") is True,
                [Outside(**one) for one in found.get("outside", [])],
                [Admitted(**one) for one in found.get("admitted", [])],
                [str(one) for one in found.get("also", [])],
                [str(one) for one in found.get("ssh", [])],
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls()


def trial_of(store: Store) -> float | None:
    """Return when the recorded trial of the fence ends (seconds since the epoch); None without a trial."""
    return FenceState.parse(store.state.fact(_FACT)).trial


def end(store: Store, finish: float) -> None:
    """Remove all rules and bans from the kernel if the fence's recorded trial ends at ``finish``.

    ``finish`` is in seconds since the epoch. If the trial is still recorded, no daemon has ended it. The next
    start of the daemon puts back everything except the fence.
    """
    if trial_of(store) == finish:
        flush_everything()


# -- the fence


class Fence(RulePart):
    """Decides whether the fence drops packets, and keeps its list of admitted networks."""

    def __init__(self, side: FirewallSide) -> None:
        self.settings = side.kernel.wanted_rules.settings.of(FenceSettings)
        store = self._store = side.common.store
        self._lists = side.kernel.lists
        self._enforcer = side.kernel.enforcer
        self._names = side.exempt.names  # follows the addresses of admitted host names
        self._protected = side.exempt.protected
        self._clock = side.common.clock
        self._looked_at = self._clock.mono()
        self._trial_ends = 0.0  # by the monotonic clock, because somebody may set the wall clock
        self._log = structlog.get_logger()
        self._state = FenceState.parse(store.best_effort.read(store.state.fact, None, _FACT))
        self._ended: float | None = None  # the end of a trial for which the kernel may still drop packets
        self._written = self._text()
        # A trial does not outlive the daemon that began it: phones that it locked out may have been restarted
        # with the host. The record stays until the rules without the fence are in place (FenceRequests). So
        # the process that ends trials ends what the kernel still has.
        self._state.trial = None
        self._follow_mode()
        self._followed: list[str] = []
        self._lists.admitted = self._admitted()
        side.common.listeners.append(self)

    def on_fact(self, fact: object) -> None:
        """Let each admission keep the rest of its time if the clock was set."""
        if isinstance(fact, ClockSet):
            step, before = fact.seconds, before_step(self._clock.wall(), fact.seconds)
            self._state.admitted = [
                evolve(one, since=one.since + step, until=one.until + step) if one.since <= before else one
                for one in self._state.admitted
            ]
            self.save()
            self._use_admitted()

    # -- at the firewall -------------------------------------------------------------------------------

    def plan(self, plan: FirewallPlan) -> FirewallPlan:
        """Return ``plan``, the wanted firewall rules, with the fence in its present mode."""
        return plan.adding(FenceFilter(self.mode, ports_of(self.also), ports_of(self.closed)))

    def configure(self, settings: Settings) -> None:
        """Apply a new configuration to the fence."""
        self.settings = settings.of(FenceSettings)
        self.check()

    def on_friend(self, friend: Friend) -> None:
        """Record a new friend (known phone or trunk) whose packets the fence would have dropped."""
        state, address = self._state, str(friend.address)
        came = self.settings.mode is not LimitMode.OFF and friend.reason in _CAME
        if not came or self.admits(ip_network(friend.address)):
            return
        account = printable(friend.account)
        if any((one.account, one.address) == (account, address) for one in state.outside):
            return
        self._log.warning("fence.outside", account=account, address=address, reason=str(friend.reason))
        one = Outside(account, address, str(friend.reason), self._clock.wall())
        state.outside = [*state.outside[-MOST_OUTSIDE + 1 :], one]

    def facts_about(self, network: Network) -> dict[str, Admission]:
        """Return whether the fence admits ``network``, and its packets from outside; {} without a fence."""
        if self.in_force is LimitMode.OFF:
            return {}
        if self.admits(network):
            return {"admission": Admission(self.in_force, inside=True)}
        tables = map(self._enforcer.backend.remembered, (OUTSIDERS, ALSO_OUTSIDERS))
        packets = sum(one.packets for one in chain.from_iterable(tables) if overlap(one.network, network))
        return {"admission": Admission(self.in_force, inside=False, packets=packets)}

    # -- what is in force ------------------------------------------------------------------------------

    @property
    def mode(self) -> LimitMode:
        """The mode of the fence that may be in force now, apart from the wait for friends at the start."""
        if self.settings.mode is not LimitMode.ENFORCE:
            return self.settings.mode
        return LimitMode.ENFORCE if self._started and not self.gaps else LimitMode.OBSERVE

    @property
    def also(self) -> frozenset[str]:
        """The ports of other services that the fence guards, without those of SSH unless this is forced."""
        return frozenset(self.settings.also) - frozenset(() if self.settings.also_ssh else self._state.ssh)

    @property
    def closed(self) -> frozenset[str]:
        """The ports among ``also`` that are closed to senders outside while the fence drops packets."""
        return self.also if self._left > 0.0 else self.also & set(self._state.also)

    @property
    def in_force(self) -> LimitMode:
        """The fence's mode in the rules that the kernel has now."""
        enforcer = self._enforcer
        return enforcer.plan.mode(FenceFilter.name) if enforcer.enforcing else LimitMode.OFF

    @property
    def gaps(self) -> list[str]:
        """The reasons why the kernel lacks networks that the fence admits; with any, it drops nothing."""
        found = []
        if INSIDE in self._lists.networks.partial:
            found.append(
                "a region of [fence] has no networks, or its database is unreadable or not read yet; "
                "fix: see the alarm about it"
            )
        if len(self._lists.networks.allow) > self._lists.most:
            found.append("the allow list is cut; fix: raise max_bans in [firewall]")
        late = self._enforcer.filler.incomplete & _ADMITTING if self._enforcer.enforcing else ()
        if late:
            found.append(f"these lists are not complete in the kernel: {', '.join(sorted(map(str, late)))}")
        return found

    @property
    def alarms(self) -> Iterator[Alarm]:
        """The present alarms about the fence."""
        if self.settings.mode is not LimitMode.OFF:
            for port in sorted(frozenset(self.settings.also) - self.also):
                text = "SSH answers there, so the port stays open to everybody"
                yield Alarm(FenceAlarmCode.FENCE_SSH, port, text)
        if self.settings.mode is not LimitMode.ENFORCE:
            return
        if not self._started:
            text = "the fence only observes; to start it: ringfence fence enforce"
            yield Alarm(FenceAlarmCode.FENCE_WAITS, "", text)
        elif self._left > 0.0:
            until = rfc3339(self._state.trial or 0.0)
            text = f"it only observes after {until}, unless: ringfence fence confirm"
            yield Alarm(FenceAlarmCode.FENCE_TRIAL, "", text)
        elif still_open := self.also - self.closed:
            ports = ", ".join(sorted(still_open))
            text = f"the fence only observes at {ports}; to start it there too: ringfence fence enforce"
            yield Alarm(FenceAlarmCode.FENCE_WAITS, "", text)
        if gaps := self.gaps:
            yield Alarm(FenceAlarmCode.FENCE_INCOMPLETE, "", f"the fence only observes: {'; '.join(gaps)}")

    @property
    def _started(self) -> bool:
        return self._state.confirmed or self._left > 0.0

    @property
    def _left(self) -> float:
        """Seconds until the fence's trial ends, by the wall or monotonic clock, the fewer; 0 without one."""
        if self._state.trial is None:
            return 0.0
        return min(self._state.trial - self._clock.wall(), self._trial_ends - self._clock.mono())

    def admits(self, network: Network) -> bool:
        """Whether the fence admits the whole of ``network``."""
        return self.lists_admit(network) or self.why_needed(network) is not None

    def why_needed(self, network: Network) -> str | None:
        """Return why this host needs ``network``, so that the fence admits it; None if it does not."""
        needed = (one for one in self._lists.networks.guarded if contains(one, network))
        found = next(needed, None)
        return None if found is None else self._protected.reasons.get(found, "one that this host needs")

    def lists_admit(self, network: Network) -> bool:
        """Whether the fence admits the whole of ``network`` by its lists, such as those of friends."""
        lists, known = self._lists, self._lists.networks
        admitting = known.allow, known.of(INSIDE)
        return lists.passes(network) or any(one.containing(network) is not None for one in admitting)

    def summary(self) -> dict[str, Any]:
        """Return the state of the fence as JSON values, as the request ``fence`` returns it.

        ``mode`` is what the kernel's rules do now. ``whole``: the kernel has all networks that the fence
        admits; otherwise ``gaps`` names what is missing, and the fence drops nothing. ``left`` is the rest
        of a trial in whole seconds, rounded up; None without a trial. ``ssh`` are the ports of other services
        that stay open, because SSH answers there.
        """
        state, gaps = self._state, self.gaps
        trial = state.trial if self._left > 0.0 else None
        named = dict.fromkeys(self.settings.also)  # in this order, each once
        closed = self.closed if self.in_force is LimitMode.ENFORCE else ()
        return {
            "configured": str(self.settings.mode),
            "mode": str(self.in_force),
            "enforcing": self._enforcer.enforcing,
            "started": self._started,
            "confirmed": state.confirmed,
            "whole": not gaps,
            "gaps": gaps,
            "observed": None if state.observed is None else rfc3339(state.observed),
            "watched": int(state.watched),
            "trial": None if trial is None else rfc3339(trial),
            "left": None if trial is None else math.ceil(round(self._left, 3)),
            "also": [port for port in named if port in self.also],
            "closed": [port for port in named if port in closed],
            "ssh": [port for port in named if port not in self.also],
            "networks": len(self._lists.networks.of(INSIDE)),
            "around": len(self._lists.around_friends),
            "outside": [asdict(one) | {"since": rfc3339(one.since)} for one in state.outside],
            "admitted": [
                {"what": one.what, "until": rfc3339(one.until), "link": one.link} for one in state.admitted
            ],
        }

    def leave_open(self, ssh: Collection[str]) -> None:
        """Set the ports at which SSH answers. The fence does not guard them, unless the settings force it."""
        self._state.ssh = sorted(ssh)

    # -- commands --------------------------------------------------------------------------------------

    def start(self, seconds: float, *, force: bool) -> float:
        """Start to drop packets for a trial of ``seconds``; return its end (seconds since the epoch).

        ``force``: start even if the fence has not observed for a day. Raise ControlError if it may not start.
        """
        now, state = self._clock.wall(), self._state
        if self.settings.mode is not LimitMode.ENFORCE:
            raise ControlError(
                'no fence that drops is configured; fix: set mode = "enforce" in [fence], and reload; '
                "the fence then still observes"
            )
        self._watch()
        if not force and state.watched < OBSERVED_FOR:
            so_far = format_duration(state.watched)
            raise ControlError(
                f"the fence has observed for {so_far}, and must for a day; fix: wait, or use --force"
            )
        self._enforcer.require_enforcing()
        if gaps := self.gaps:
            raise ControlError(f"the fence would drop whom it must admit: {'; '.join(gaps)}")
        state.confirmed = state.confirmed and bool(self.also - set(state.also))
        state.trial, self._ended = now + seconds, None
        self._trial_ends = self._clock.mono() + seconds
        self._log.warning("fence.started", until=rfc3339(now + seconds))
        self.save()
        return now + seconds

    def confirm(self) -> bool:
        """Keep the fence after its trial; return whether a trial was running."""
        running = self._left > 0.0
        if running:
            self._state.trial, self._state.confirmed, self._state.also = None, True, sorted(self.also)
            self.save()
        return running

    def admit(self, what: str, seconds: float, *, shorten: bool = True, link: str = "") -> float:
        """Admit an address, a network or a host name to the SIP ports for ``seconds``; return the end.

        The end is in seconds since the epoch. Without ``shorten``, an entry that is admitted for longer
        already keeps its end. ``link`` is the account whose lasting link admits it, and which then admits at
        most MOST_PLACES. Raise ControlError if ``what`` cannot be admitted.
        """
        try:
            value = parse_entry(what)
        except ValueError as error:
            raise ControlError(str(error)) from None
        if value.kind is EntryKind.REGION:
            raise ControlError("a region is not admitted for a time; fix: name it in [fence]")
        if value.network is not None and value.network.prefixlen < SHORTEST[value.network.version]:
            raise ControlError(f"{value.text} is a large part of the internet, so it is not admitted")
        now = self._enforcer.now()
        until = now + seconds
        same = [one for one in self._state.admitted if one.link == link]
        if not shorten:
            until = max([until, *(one.until for one in same if one.what == value.text)])
        others = [one for one in same if one.what != value.text]
        if link:
            others = others[-MOST_PLACES + 1 :]
        elif len(others) >= MOST_ADMITTED:
            raise ControlError(f"{MOST_ADMITTED} entries are admitted already")
        rest = [one for one in self._state.admitted if one.link != link]
        self._state.admitted = [*rest, *others, Admitted(value.text, until, link, now)]
        self.save()
        self._use_admitted()
        return until

    def end_admissions(self, link: str) -> list[str]:
        """End what the lasting link of the account ``link`` admits; return these entries."""
        ended = [one.what for one in self._state.admitted if one.link == link]
        self._state.admitted = [one for one in self._state.admitted if one.link != link]
        self.save()
        self._use_admitted()
        return ended

    # -- periodic work ---------------------------------------------------------------------------------

    def check(self) -> bool:
        """End the fence's trial and the admissions whose time is over; return whether a trial has ended.

        If so, the database keeps the trial until :meth:`forget_trial`.
        """
        now, state = self._enforcer.now(), self._state  # if the clock was set, the admissions move first
        trial = state.trial
        self._watch()
        self._follow_mode()
        if state.trial is not None and self._left <= 0.0:
            state.trial = None
            self._log.warning("fence.trial_ended", fix="ringfence fence enforce")
        state.admitted = [one for one in state.admitted if one.until > now]
        self._use_admitted()
        if trial is None or state.trial is not None:
            return False
        self._ended = trial
        return True

    def forget_trial(self) -> None:
        """Record that the kernel drops nothing for a trial that has ended. Call :meth:`save` then."""
        self._ended = None

    def end_trial(self) -> bool:
        """End an unconfirmed trial of the fence, because the daemon stops; return whether there was one.

        Call :meth:`save` when the kernel has the rules without the fence.
        """
        ended, self._state.trial = self._state.trial is not None, None
        return ended

    def save(self) -> None:
        """Write the state of the fence into the database, if it has changed."""
        text = self._text()
        if text != self._written:
            self._written = text
            self._store.best_effort.write(self._store.state.set_fact, _FACT, text, key=_FACT)

    def _follow_mode(self) -> None:
        """Start or end the fence's observation, and end its trial, if the configured mode demands that."""
        state = self._state
        if self.settings.mode is LimitMode.OFF:
            state.observed, state.watched, state.outside = None, 0.0, []
        elif state.observed is None:
            state.observed = self._clock.wall()
        if self.settings.mode is not LimitMode.ENFORCE:
            state.trial, state.confirmed = None, False
        state.also = [one for one in state.also if one in self.settings.also]

    def _watch(self) -> None:
        """Add the time since the last call to the time for which the fence has observed.

        The wall clock does not count: at the boot of a host without a battery it may be years slow.
        """
        before, self._looked_at = self._looked_at, self._clock.mono()
        if self.in_force is not LimitMode.OFF:
            self._state.watched += self._looked_at - before

    def _use_admitted(self) -> None:
        """Look up admitted host names from now on, and write the fence's changed lists into the kernel."""
        hosts = [value.text for value in self._entries() if value.kind is EntryKind.HOST]
        if hosts != self._followed:
            self._followed = hosts
            self._names.want(hosts, by="fence")
        self._lists.admitted = self._admitted()
        stale = self._lists.stale()
        if stale and self._enforcer.enforcing:
            self._enforcer.filler.fill(*stale)

    def _entries(self) -> Iterator[EntryValue]:
        """Yield what is admitted now. After a restart, the recorded state may have what has ended by then."""
        now = self._clock.wall()
        for one in self._state.admitted:
            if one.until <= now:
                continue
            with suppress(ValueError):
                yield parse_entry(one.what)

    def _admitted(self) -> frozenset[Network]:
        answers = self._names.answers
        found: set[Network] = set()
        for value in self._entries():
            found |= {value.network} if value.network is not None else set(answers.get(value.text, ()))
        return frozenset(found)

    def _text(self) -> str:
        watched = self._state.watched // WATCHED_STEP * WATCHED_STEP
        trial = self._ended if self._state.trial is None else self._state.trial
        return json.dumps(asdict(self._state) | {"watched": watched, "trial": trial})


def fence_of(side: FirewallSide) -> Fence:
    """Return the fence, which is one of the parts of the firewall's ``side``."""
    return next(part for part in side.parts if isinstance(part, Fence))


def build(side: FirewallSide) -> Fence:
    """Return the fence, whose rules and lists are those of ``side``."""
    return Fence(side)
