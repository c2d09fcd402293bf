"""The fleet in a story: a local API that fails, loses answers and restarts, and bans of other hosts."""
# ruff: noqa: ANN401 - a replaced function may be any

import random
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from ipaddress import ip_network
from math import inf
from types import SimpleNamespace
from typing import Any, ClassVar

from tests.features.fleet.server import Fault
from tests.judge.asterisk import Act
from tests.judge.oracle import Violation
from tests.judge.worlds import ATTACKERS
from tests.simulate.api import OTHERS, LocalApi
from tests.simulate.feature import ENDING, SLACK, Feature, Replaced, Stage
from tests.simulate.put_back import ASKER, GUESS, Row, does_nothing, guesses
from tests.simulate.step import Kinds, Step, times

from ringfence.features.fleet import api as fleet_api
from ringfence.features.fleet import guard as fleet
from ringfence.features.fleet import network_list
from ringfence.features.fleet.messages import is_shared, scenario_of
from ringfence.features.fleet.sync import FULL_EVERY
from ringfence.firewall import network_lists
from ringfence.values.ban import BanEnd
from ringfence.values.network import Network, format_network

_LAST_END = (
    "SELECT end FROM bans WHERE network IN (?1, ?1 || '/32') ORDER BY coalesce(ended, 1e12) DESC LIMIT 1"
)
_REMOVALS = frozenset(str(one) for one in BanEnd if one.is_everywhere)
_SUBJECT = {4: 32, 6: 64}
"""By IP version, the length of the network that one sender has."""


_FLEET = "ringfence.features.fleet"
_SHARED = (Step("fleet", wait=0.0), *guesses(GUESS))
"""A ban that is shared with other hosts."""


def _asks_no_more(right: Any) -> Any:
    def on_failed(self: Any, *given: Any, **named: Any) -> None:
        planned = self._next_full
        right(self, *given, **named)
        self._next_full = planned

    return on_failed


def _logs_in_once(_right: Any) -> Any:
    def change(self: Any, request: Any, now: float) -> None:
        if self._token is None:
            self._log_in()
        self._authorized(request, now)

    return change


_FAULTS: Sequence[Row] = (
    (
        "an unban that is not shared",
        "A ban that was removed here went on at the other hosts.",
        f"{_FLEET}.sync:Sync.on_unban",
        does_nothing,
        "O",
        [*_SHARED, Step("unban a sender", wait=6.0, number=1)],
    ),
    (
        "an unban before a restart, while the API is down",
        "No other host got it after the restart.",
        f"{_FLEET}.shared:SharedBans.ended",
        lambda _right: lambda *_: [],
        "O",
        [
            *_SHARED,
            Step("api down", wait=6.0, seconds=20.0),
            Step("unban a sender", number=1),
            Step("kill", wait=3.0, seconds=0.1),
        ],
    ),
    (
        "an answer of the API that is lost",
        "The decisions in it were never requested again.",
        f"{_FLEET}.sync:Sync.on_failed",
        _asks_no_more,
        "O",
        [
            Step("fleet", wait=0.0),
            Step("api bans", wait=8.0, number=1, seconds=14_400.0),
            Step("api answers are lost", wait=0.0, number=1),
            Step("rotate", wait=20.0),
        ],
    ),
    (
        "an API with a new database",
        "The bans of this host were not sent again.",
        f"{_FLEET}.sync:Sync._send_missing",
        does_nothing,
        "O",
        [*_SHARED, Step("api forgets", wait=6.0)],
    ),
    (
        "a host whose clock is wrong",
        "Its bans had another end at the API, which counts from the times in the request.",
        f"{_FLEET}.api:date_from",
        lambda _right: lambda *_: None,
        "O",
        [Step("fleet", wait=0.0), Step("kill", wait=3.3, seconds=0.1, set=-7_200.0), *guesses(GUESS)],
    ),
    (
        "an API that was restarted",
        "It refused the earlier token, and this host sent no ban for an hour.",
        f"{_FLEET}.api:Api._change",
        _logs_in_once,
        "S",
        [*_SHARED, Step("api restarts", wait=6.0), *guesses(Act("guesses", ASKER, transport="TCP"))],
    ),
    (
        "a decision that was deleted",
        "The kernel went on to deny an address that no other host banned any more.",
        f"{_FLEET}.sync:Sync._delete",
        lambda _right: lambda *_: False,
        "O",
        [
            Step("fleet", wait=0.0),
            Step("api bans", wait=8.0, number=1, seconds=14_400.0),
            Step("api bans", wait=10.0, number=1),
        ],
    ),
)


def _api_bans(chosen: random.Random) -> Step:
    seconds = chosen.choice((20.0, 60.0, 14_400.0))
    return Step("api bans", number=chosen.randint(1, 4), seconds=seconds)


class Fleet(Feature):
    """CrowdSec's local API, at which the daemon shares its bans.

    Invariant O: the API has each shared ban of this host, unless somebody deleted it there, and none that was
    removed here. The kernel denies the addresses that other hosts ban there, and no other.
    """

    kind = "fleet"
    steps: ClassVar[Kinds] = {
        "api down": lambda chosen: Step("api down", seconds=chosen.choice((1.0, 20.0, 90.0))),
        "api fails": times("api fails", 4),
        "api answers are lost": times("api answers are lost", 4),
        "api restarts": times("api restarts", 1),
        "api forgets": times("api forgets", 1),
        "api bans": _api_bans,
        "api is short": times("api is short", 1),
        "api deletes ours": times("api deletes ours", 1),
    }
    faults = _FAULTS

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        schedule = self.host.schedule
        ahead = schedule.ahead
        version = random.Random(f"api {self.host.seed}").choice(("1.4.6", "1.7"))  # noqa: S311 - no secret
        self._api = LocalApi(version=version, clock=lambda: schedule.mono + ahead)  # no step sets this clock

    def settings(self) -> Mapping[str, object]:
        """Return the API's table."""
        return {"crowdsec": self._api.settings(self.host.folder)}

    def replaced(self) -> Sequence[Replaced]:
        """Return the API's connections, and the source of the pauses between tries."""
        chosen = self.host.schedule.chosen
        chance = SimpleNamespace(Random=lambda: random.Random(chosen.random()))  # noqa: S311 - jitter
        return [(fleet_api, "open_connection", self._api.connect), (fleet, "random", chance)]

    def drops(self, source: str) -> bool:
        """Whether another host's ban drops the packets of an address."""
        kernel = self.host.kernel
        passing = (network_lists.ALLOW, *network_lists.PASSING)
        passes = any(kernel.has(which, source) for which in passing)
        return kernel.has_rules and kernel.has(network_list.LIST, source) and not passes

    def on_restart(self) -> None:
        """Forget what only a process keeps of a database that was lost."""
        self._api.forgotten.clear()

    def heal(self) -> None:
        """End all faults."""
        self._api.is_up = True
        self._api.faults.clear()

    # -- the steps

    def api_down(self, step: Step) -> None:
        """Let the API refuse connections for some seconds."""
        self._api.is_up = False
        self.host.schedule.after(step.seconds, lambda: setattr(self._api, "is_up", True))

    def api_fails(self, step: Step) -> None:
        """Let the API answer the next requests by an error."""
        self._api.faults += [Fault(status=500)] * step.number

    def api_answers_are_lost(self, step: Step) -> None:
        """Let the API carry out the next requests, and lose its answers."""
        self._api.faults += [Fault(cut=0)] * step.number

    def api_restarts(self, _: Step) -> None:
        """Let the API refuse each token that it gave."""
        self._api.forget_tokens()

    def api_forgets(self, _: Step) -> None:
        """Let the API begin with an empty database."""
        self._api.lose()
        self.rest = FULL_EVERY  # the daemon learns of it by its next request for all decisions

    def api_is_short(self, _: Step) -> None:
        """Let the API's next answer contain no decision."""
        self._api.faults.append(Fault(rows=0, only="/v1/decisions/stream"))
        self.rest = FULL_EVERY

    def api_bans(self, step: Step) -> None:
        """Let another host ban an address, or let somebody delete this."""
        if any(value == _others(step) for _, value in self._api.every):
            self._api.delete(_others(step))
        else:
            self._api.ban(_others(step), step.seconds)

    def api_deletes_ours(self, _: Step) -> None:
        """Let somebody delete all decisions of this host."""
        for _scenario, value in sorted(self._api.own):
            self._api.delete(value)

    # -- what must hold

    def violations(self) -> Iterator[Violation]:
        """Yield each difference between the local API and this host."""
        stage, api, wall = self.stage, self._api, self.host.schedule.wall
        own = {
            (scenario_of(one.rule), format_network(one.network)): one
            for one in stage.recorded
            if is_shared(one) and one.expires > wall + ENDING
        }
        mine, ends_known = api.own, not (stage.ends_unknown or stage.undone)
        for key, ban in own.items():
            since = ban.since - wall + api.clock() - SLACK - stage.drift
            deleted = api.deleted_by_hand.get(key, -inf) > since
            left, there = ban.expires - wall, mine.get(key)
            if there is None and not (deleted or stage.undone or key in api.others):
                yield Violation("O", f"the API lacks the ban of {key[1]}, which has {left:.0f} s left")
            elif there is not None and ends_known and abs(there - left) > SLACK + stage.drift:
                yield Violation("O", f"a ban of {key[1]} has {left:.0f} s left, {there:.0f} s at the API")
        for scenario, value in sorted(mine.keys() - own.keys()) if not stage.undone else ():
            if self._last_end(value) in _REMOVALS:
                yield Violation("O", f"the API has the ban of {value} ({scenario}), which was removed here")
        # A decision of this host applies here too if its ban is unknown by now. That is no promise.
        every, known = api.every, own.keys() | mine.keys()
        must = _subjects(of[1] for of, left in every.items() if left > ENDING and of not in known)
        may = _subjects([*(value for of, value in every if (of, value) not in own), *api.forgotten])
        denied = _subjects(map(str, self.host.kernel.lists.get(network_list.LIST, ())))
        if not must <= denied <= may:
            yield Violation("O", f"the kernel denies {_named(denied)}; others ban {_named(must)}")
        state = stage.process.request("fleet")
        for what in ("waiting", "failing", "lost"):
            if state[what]:
                yield Violation("O", f"{state[what]} bans or unbans are {what}: {state}")

    def _last_end(self, value: str) -> str:
        """Return how the last ban of a network ended; "" if it runs, or if there is none."""
        with closing(sqlite3.connect(self.stage.process.database)) as database:
            row = database.execute(_LAST_END, (value,)).fetchone()
        return str(row[0] or "") if row else ""


def _others(step: Step) -> str:
    """Return the address that another host bans: one that no sender has, or an attacker's."""
    return (*OTHERS, ATTACKERS[0])[step.number - 1]


def _subjects(values: Iterable[str]) -> frozenset[Network]:
    """Return the IPv4 addresses and the /64s in some networks: a list of the kernel merges neighbours."""
    return frozenset(
        part
        for one in map(ip_network, values)
        for part in one.subnets(new_prefix=max(one.prefixlen, _SUBJECT[one.version]))
    )


def _named(networks: Iterable[Network]) -> str:
    return ", ".join(sorted(map(format_network, networks))) or "nothing"
