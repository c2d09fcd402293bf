"""Changes, failures of the connection and other programs in any order, on the real kernel, beside a model.

A seed decides everything. The model knows which bans and lists there must be. If the backend did not get the
kernel's answer to a change, the change may have been carried out, or not.
"""

import errno
import json
import os
import random
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import collapse_addresses, ip_address, ip_network, summarize_address_range
from typing import Any

import pytest
from attrs import define, evolve
from tests.firewall.test_contract import PLANS
from tests.support.lists import write_list
from tests.support.netns import netns, run

from ringfence.errors import FirewallError, SetFullError
from ringfence.firewall import make_backend, network_lists
from ringfence.firewall.contract import Add, Backend, Change, Outcome, Remove
from ringfence.firewall.ipset.changes import SetChanges
from ringfence.firewall.ipset.sets import ban_set_name
from ringfence.firewall.network_lists import NetworkList
from ringfence.firewall.nftables.backend import Changes, NftablesBackend
from ringfence.firewall.nftables.ruleset import DEFAULT_LENGTHS, BanSet
from ringfence.netlink import connection
from ringfence.values.ban import Scope
from ringfence.values.network import VERSIONS, Network, contains, exempts_friends, is_single

pytestmark = pytest.mark.kernel

SEEDS, STEPS = 12, 30
GAMES = [
    *((name, seed) for name in ("nftables", "ipset") for seed in range(SEEDS)),
    ("nftables", 22),  # the answer to a list of all addresses is lost, and an empty list follows
]
OLDER = range(1, SEEDS, 2)
"""The seeds for which nftables changes bans as before Linux 6.12, which renews no timeout."""
CROWDED = range(2, SEEDS, 3)
"""The seeds for which a set of bans has room for one."""
TIMED = range(0, SEEDS, 7)
"""The seeds whose games end with bans of one second."""
TIMEOUTS = (600, 3_600, 86_400)
SLACK = 15.0
"""Seconds by which a ban's end may differ from the model's: what a step takes on a slow machine."""
LOOKS = 11
"""The health checks after which another program's change is noticed: one of ten looks at each set."""
EVERYTHING = ip_network("0.0.0.0/0")
NETWORKS: Sequence[Network] = [
    ip_network(text)
    for text in (
        *("192.0.2.1", "192.0.2.2", "192.0.2.0/24", "192.0.0.0/20", "198.51.100.128/29", "0.0.0.0/0"),
        *("2001:db8::1", "2001:db8::2", "2001:db8::/64", "2001:db8::/48", "2001:db8:1::/96", "2001:db8::/32"),
    )
]
COMMON = [one for one in NETWORKS if one.prefixlen in DEFAULT_LENGTHS[one.version]]
"""The networks whose set of bans always exists."""
FILLING: Sequence[Change] = [
    Add(NETWORKS[0], 600, Scope.SIP),
    Remove(NETWORKS[1], Scope.SIP),
    Remove(NETWORKS[0], Scope.SIP),
]
"""A ban that may fill its set, and its removal after that of a ban that may be absent."""
LISTS = (network_lists.ALLOW, network_lists.FRIENDS, network_lists.DENY)

Key = tuple[Network, Scope]


@define
class Fault:
    """What fails: ``kind``, after ``after`` calls, and then ``times`` calls in a row.

    "unsent": the kernel gets nothing. "lost": its answer does not arrive (ENOBUFS). "silent": nothing arrives
    until the time is over.
    """

    kind: str = ""
    after: int = 0
    times: int = 0

    def strikes(self, *kinds: str) -> bool:
        """Whether a call fails that a fault of these kinds concerns."""
        if self.kind not in kinds:
            return False
        self.after -= 1
        if self.after >= 0 or not self.times:
            return False
        self.times -= 1
        return True


class FailingSocket(socket.socket):
    """A socket to the kernel, with the fault of a game."""

    def __init__(self, made: socket.socket, fault: Callable[[], Fault]) -> None:
        super().__init__(made.family, made.type, made.proto, made.detach())
        self._fault = fault

    def send(self, data: Any, flags: int = 0) -> int:  # noqa: ANN401 - as socket.socket has it
        """Send, or fail before."""
        if self._fault().strikes("unsent"):
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        return super().send(data, flags)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive; then fail, if it is time."""
        data = super().recv(size, flags)
        if self._fault().strikes("lost", "silent"):
            number = errno.ENOBUFS if self._fault().kind == "lost" else errno.EAGAIN
            raise OSError(number, os.strerror(number))
        return data


class Game:
    """A backend on a new network namespace, its model, and the random choices of a seed.

    From ``SEEDS`` on, a seed chooses only among the first moves, so that it stays the game that it was.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.seed = seed
        self.chosen = random.Random(f"{name} {seed}")  # noqa: S311 - no secret
        self.fault = Fault()
        self.plan = evolve(PLANS[-1], maxelem=1 if seed in CROWDED else 1_024)
        self.backend = self._new_backend()
        self.bans: dict[Key, float] = {}
        """The end of each ban (monotonic seconds)."""
        self.lists: dict[NetworkList, frozenset[Network]] = {}
        """The lists whose contents are known."""
        self.damaged = True
        """Whether sets or rules are missing until the next ``open``."""
        self.said: list[str] = []

    def _new_backend(self) -> Backend:
        if self.name == "nftables":
            return NftablesBackend(self.plan, release="6.1.0" if self.seed in OLDER else None)
        return make_backend(self.name, self.plan)

    def play(self) -> None:
        """Make some steps, and compare the kernel with the model after each."""
        self.open()
        steps: dict[Callable[[], None], int] = {
            self.apply: 8,
            self.replace: 3,
            self.open: 2,
            self.change_plan: 2,
            self.restart: 1,
            self.flush: 1,
            self.interfere: 3,
        }
        if self.seed < SEEDS and self.seed not in CROWDED:
            steps[self.place] = 2
        for _ in range(STEPS):
            step = self.chosen.choices([*steps], [*steps.values()])[0]
            if self.chosen.random() < 0.4:
                kind = self.chosen.choice(("unsent", "lost", "silent"))
                self.fault = Fault(kind, self.chosen.randrange(4), self.chosen.randint(1, 3))
            self.said.append(f"{step.__name__} {self.fault}")
            step()
            self.fault = Fault()
            self.compare()
        if self.seed in TIMED:
            self.said.append("expire")
            self.expire()

    # -- the steps

    def _excuse(self, error: FirewallError, *, damaged: bool = False) -> None:
        """Raise AssertionError if a call failed without a reason: a fault, or damage if that is one."""
        assert self.fault.kind or (damaged and self.damaged), error

    def apply(self) -> None:
        """Add and remove some bans. What is confirmed must be in the kernel; anything else may be."""
        faulty = bool(self.fault.kind) or self.damaged
        batch = [self._change() for _ in range(self.chosen.randint(1, 12))]
        if self.seed in CROWDED:
            batch += FILLING
        try:
            outcomes = self.backend.apply(batch)
        except FirewallError as error:
            self._excuse(error, damaged=True)
            outcomes = [Outcome(change, error=error) for change in batch]
        assert [outcome.change for outcome in outcomes] == batch
        may: dict[Key, list[float]] = {}
        for one in outcomes:
            key = one.change.network, one.change.scope
            end = time.monotonic() + one.change.timeout if isinstance(one.change, Add) else 0.0
            if one.change.network == EVERYTHING:
                assert one.error is not None or isinstance(one.change, Remove)
            elif one.error is None:
                may[key] = [end]
            elif not faulty and self._may_be_full(one, batch):
                may.setdefault(key, [self.bans.get(key, 0.0)])
            else:
                assert faulty, one
                may.setdefault(key, [self.bans.get(key, 0.0)]).append(end)
        self.fault = Fault()
        if faulty:
            self._look()
        found = self._found()
        for key, ends in may.items():
            end = found.pop(key, 0.0)
            assert any(abs(end - one) < SLACK for one in ends), (key, end, ends)
            self.bans.pop(key, None)
            if end:
                self.bans[key] = end

    def _change(self) -> Change:
        network, scope = self.chosen.choice(NETWORKS), self.chosen.choice([*Scope])
        if self.chosen.random() < 0.65:
            return Add(network, self.chosen.choice(TIMEOUTS), scope)
        return Remove(network, scope)

    def _may_be_full(self, refused: Outcome, batch: Sequence[Change]) -> bool:
        """Whether a ban was refused because its set is full, and other bans may have taken all room."""
        own = refused.change.network, refused.change.scope
        added = {(one.network, one.scope) for one in batch if isinstance(one, Add)}
        others = (added | self.bans.keys()) - {own, *((EVERYTHING, scope) for scope in Scope)}
        room = self.plan.maxelem - sum(self._set_of(*key) == self._set_of(*own) for key in others)
        return isinstance(refused.error, SetFullError) and room <= 0

    def replace(self) -> None:
        """Replace a list."""
        which = self.chosen.choice(LISTS)
        wanted = self.chosen.sample(NETWORKS, self.chosen.randrange(len(NETWORKS)))
        self.lists.pop(which, None)
        try:
            write_list(self.backend, which, wanted)
        except FirewallError as error:
            self._excuse(error, damaged=True)
            self._look()
        else:
            self.lists[which] = frozenset(wanted)

    def open(self) -> None:
        """Open the firewall, after a failure once more: then nothing is damaged."""
        before = self.damaged
        try:
            opened = self.backend.open()
        except FirewallError as error:
            self._excuse(error)
            self.fault = Fault()
            opened = self.backend.open()
        assert opened.adopted == len(self.bans)
        if opened.repaired or before:  # the daemon writes each list again
            self.lists.clear()
        self.damaged = False

    def change_plan(self) -> None:
        """Install other rules."""
        self.plan = evolve(self.chosen.choice(PLANS), maxelem=self.plan.maxelem)
        self.backend.plan = self.plan
        self.open()

    def restart(self) -> None:
        """Let another process take over."""
        self.backend.close()
        self.backend = self._new_backend()
        self.open()

    def flush(self) -> None:
        """Remove everything, and begin again."""
        try:
            self.backend.flush()
        except FirewallError as error:
            self._excuse(error)
            self.fault = Fault()
            self.backend.flush()
        self.fault = Fault()
        assert not self.backend.is_present()
        self.bans.clear()
        self.lists.clear()
        self.open()

    def interfere(self) -> None:
        """Let another program remove something; the health checks must notice that. Repair it perhaps."""
        self.fault = Fault()
        if self.damaged:
            self.open()
        if self.bans and self.chosen.random() < 0.5:
            lone = [one for one in sorted(self.bans, key=str) if not self._is_hidden(*one)]
            key = self.chosen.choice(lone)
            self._delete(*key)
            del self.bans[key]
        else:
            self._remove_rules()
            self.damaged = True
            self.lists.clear()
        seen = [self.backend.health() for _ in range(LOOKS)]
        if self.damaged:
            assert seen[-1].damage is not None
        else:
            assert any(one.changed or one.elements == len(self.bans) for one in seen)
            self.damaged = seen[-1].damage is not None  # ipset lacks the ban that it looks up
        if self.chosen.random() < 0.7:
            self.open()

    def place(self) -> None:
        """Let another program place a ban, or set the time of one; that is no damage, and it is counted."""
        self.fault = Fault()
        if self.damaged:
            self.open()
        network, scope = key = self.chosen.choice(COMMON), self.chosen.choice([*Scope])
        name, seconds = self._set_of(network, scope), self.chosen.choice(TIMEOUTS)
        if self.name == "nftables":
            element = f"inet ringfence {name} {{ {network.network_address}"
            old = f"delete element {element} }}; " if key in self.bans else ""  # older kernels renew nothing
            run("nft", f"{old}add element {element} timeout {seconds}s }}")
        else:
            run("ipset", "-exist", "add", name, str(network), "timeout", str(seconds))
        self.bans[key] = time.monotonic() + seconds
        seen = [self.backend.health() for _ in range(LOOKS)]
        assert any(one.changed or one.elements == len(self.bans) for one in seen)
        assert {one.damage for one in seen} == {None}

    def expire(self) -> None:
        """Place bans that last a second: then the kernel has only the others."""
        if self.damaged:
            self.open()
        short = [one for one in NETWORKS if one != EVERYTHING]
        assert {one.error for one in self.backend.apply([Add(one, 1) for one in short])} == {None}
        for one in short:
            self.bans.pop((one, Scope.FULL), None)
        time.sleep(1.2)
        until = time.monotonic() + 10.0  # nftables counts a ban until the kernel has cleaned its set
        while self.backend.health().elements not in (len(self.bans), None) and time.monotonic() < until:
            time.sleep(0.1)
        self.compare()

    def _set_of(self, network: Network, scope: Scope) -> str:
        """Return the name of the set of a ban."""
        if self.name == "nftables":
            return BanSet(scope, network.version, network.prefixlen).name
        return ban_set_name(network.version, scope, friends_exempt=exempts_friends(network))

    def _is_hidden(self, network: Network, scope: Scope) -> bool:
        """Whether ipset finds this address in its set without its ban: in a network around it.

        The health check notices only later that such a ban is gone: when the other one has ended.
        """
        if self.name == "nftables" or not is_single(network):
            return False
        name = self._set_of(network, scope)
        return any(
            one != network and self._set_of(one, other) == name and contains(one, network)
            for one, other in self.bans
        )

    def _delete(self, network: Network, scope: Scope) -> None:
        name = self._set_of(network, scope)
        if self.name == "nftables":
            run("nft", f"delete element inet ringfence {name} {{ {network.network_address} }}")
        else:
            run("ipset", "del", name, str(network))

    def _remove_rules(self) -> None:
        if self.name == "ipset":
            run(self.chosen.choice(("iptables", "ip6tables")), "-t", "raw", "-F")
        elif self.chosen.random() < 0.5:
            run("nft", "flush table inet ringfence")
        else:
            run("nft", "delete table inet ringfence")
            self.bans.clear()

    # -- what is seen

    def _look(self) -> None:
        """Note damage: until the next ``open``, changes without an answer may look like it."""
        self.fault = Fault()
        seen = [self.backend.health() for _ in range(LOOKS)]
        self.damaged = self.damaged or seen[-1].damage is not None

    def _found(self) -> dict[Key, float]:
        now = time.monotonic()
        return {(one.network, one.scope): now + one.timeout for one in self.backend.list()}

    def compare(self) -> None:
        """Compare the bans and the lists of the kernel with the model."""
        found = self._found()
        assert found.keys() == self.bans.keys()
        for key, end in self.bans.items():
            assert abs(found[key] - end) < SLACK, (key, found[key] - end)
            if not self.damaged:
                there = self.backend.find(*key)
                assert there is not None
                assert (there.network, there.scope) == key
        if not self.damaged:
            health = self.backend.health()
            assert (health.damage, health.elements) in {(None, len(self.bans)), (None, None)}
        for which, wanted in self.lists.items():
            for version in VERSIONS:
                mine: Any = [one for one in wanted if one.version == version]
                assert {*self._members(which, version)} == {*collapse_addresses(mine)}, which

    def _members(self, which: NetworkList, version: int) -> Iterator[Network]:
        """Yield the networks of a list of the kernel."""
        if self.name == "ipset":
            listed = run("ipset", "list", f"ringfence-{which}{version}").partition("Members:\n")[2]
            found: Any = [ip_network(one) for one in listed.split()]
        else:
            answer = json.loads(run("nft", "-j", "list", "set", "inet", "ringfence", f"{which}{version}"))
            [elements] = [one["set"].get("elem", ()) for one in answer["nftables"] if "set" in one]
            found = [network for one in elements for network in _networks(one)]
        yield from collapse_addresses(found)


def _networks(element: Any) -> Iterator[Network]:  # noqa: ANN401 - JSON
    """Yield the networks of an element, as `nft -j` prints it."""
    match element:
        case {"prefix": {"addr": address, "len": length}}:
            yield ip_network(f"{address}/{length}")
        case {"range": [first, last]}:
            ends: Any = (ip_address(first), ip_address(last))
            yield from summarize_address_range(*ends)
        case _:
            yield ip_network(element)


@contextmanager
def game(name: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Game]:
    """Yield a game in a namespace of its own."""
    played, right = Game(name, seed), connection._connect
    monkeypatch.setattr(
        connection, "_connect", lambda timeout: FailingSocket(right(timeout), lambda: played.fault)
    )
    with netns():
        try:
            yield played
        finally:
            played.fault = Fault()
            played.backend.flush()
            played.backend.close()


@pytest.mark.parametrize(("name", "seed"), GAMES)
def test_the_kernel_has_what_the_backend_says(name: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each confirmed change is in the kernel, others only in part; what others remove is noticed."""
    with game(name, seed, monkeypatch) as played:
        try:
            played.play()
        except AssertionError as error:
            error.add_note("\n".join(played.said))
            raise


def _confirm_all(self: Any, groups: Any, _lost: object) -> None:  # noqa: ANN401 - the arguments of the true one
    self._confirm(groups)


def _confirm_rest(right: Any) -> Any:  # noqa: ANN401 - a replaced function
    def send(self: Any, name: str, changes: Sequence[Change]) -> Any:  # noqa: ANN401 - as the true one
        outcomes, lost = right(self, name, changes)
        return [Outcome(one.change, 1.0) if lost else one for one in outcomes], None

    return send


@pytest.mark.parametrize("name", ["nftables", "ipset"])
def test_a_change_that_is_confirmed_and_not_there_is_noticed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that confirms changes of which it got no answer does not agree with the model."""
    if name == "nftables":
        monkeypatch.setattr(Changes, "_check_results", _confirm_all)
    else:
        monkeypatch.setattr(SetChanges, "_send", _confirm_rest(SetChanges._send))
    with pytest.raises(AssertionError):  # noqa: PT012 - any of the seeds
        for seed in range(4 * SEEDS):
            with game(name, seed, monkeypatch) as played:
                played.play()
