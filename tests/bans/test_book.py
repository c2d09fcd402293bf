"""The book of bans against a plain model: the same bans, and facts that report each of them once."""

from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_network
from itertools import chain
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence import ledger as ledgers
from ringfence.ban_facts import Adopted, Fact, Forgotten, News, Over, Placed, Refused, Restored
from ringfence.bans.book import CHUNK, Batch, Book, Steps, T, in_parts
from ringfence.bans.exempt import Exempt
from ringfence.errors import FirewallError, SetFullError
from ringfence.firewall.contract import MAX_TIMEOUT, Add, Change, Outcome
from ringfence.ledger import Ledger, key_of, network_of
from ringfence.values.ban import CLAIMED_SCOPES, Ban, BanEnd, Scope
from ringfence.values.network import Network, NetworkSet, overlap

Key = tuple[Network, Scope]

ROOM = 2
"""The number of bans in a set of the kernel: one for each IP version and scope."""
MOST_PENDING = 2
FOREVER = 1e9
NARROWER = {Scope.FULL: [Scope.SIP, *CLAIMED_SCOPES], Scope.SIP: [*CLAIMED_SCOPES]}

TEXTS = "192.0.2.0", "192.0.2.1", "192.0.2.0/31", "2001:db8::/64"
NETWORKS = st.sampled_from([ip_network(text) for text in TEXTS])
SOME = st.lists(NETWORKS, max_size=3, unique=True)
SCOPES = st.sampled_from([Scope.FULL, Scope.FULL, Scope.SIP, Scope.SIP_UDP])
SECONDS = st.sampled_from([20.0, 40.0, 60.0, 600.0])
STEPS = st.one_of(
    st.tuples(st.just("decide"), NETWORKS, SCOPES, SECONDS, st.sampled_from([None, 20])),
    st.tuples(st.just("ban"), SOME, SECONDS),
    st.tuples(st.just("part"), NETWORKS, SECONDS),
    st.tuples(st.just("unban"), NETWORKS),
    st.tuples(st.just("unban_keys"), st.lists(st.tuples(NETWORKS, SCOPES), unique=True), st.booleans()),
    st.tuples(st.just("exempt"), st.lists(NETWORKS, max_size=1)),
    st.tuples(st.just("refuse"), SOME),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 10.0, 30.0])),
    st.tuples(st.just("lose"), SOME),
    st.tuples(st.just("adopt"), NETWORKS, SCOPES, SECONDS),
    st.tuples(st.just("switch")),
)


def room_for(key: Key, bans: Iterable[Key]) -> bool:
    """Whether the set of a ban can take it."""
    like = [one for one in bans if (one[0].version, one[1]) == (key[0].version, key[1])]
    return key in like or len(like) < ROOM


class Kernel:
    """A kernel with sets of a few bans. It refuses each change of some networks."""

    def __init__(self) -> None:
        self.bans: dict[Key, float] = {}
        self.refused: set[Network] = set()

    def answer(self, change: Change, now: float) -> Outcome:
        """Carry out a change, unless it is refused."""
        self.bans = {key: end for key, end in self.bans.items() if end > now}
        key = (change.network, change.scope)
        if change.network in self.refused:
            return Outcome(change, error=FirewallError("refused"))
        if not isinstance(change, Add):
            self.bans.pop(key, None)
            return Outcome(change)
        if not room_for(key, self.bans):
            return Outcome(change, error=SetFullError("the set is full"))
        self.bans[key] = now + change.timeout
        return Outcome(change, timeout=change.timeout)


class Told:
    """The knowledge of a listener that gets every fact, and nothing else."""

    def __init__(self) -> None:
        self.bans: dict[Key, float] = {}
        self.running: dict[Key, Ban] = {}
        """The bans that were placed and are not over: what the store has."""
        self.pending: set[Key] = set()
        self.news: set[str] = set()
        self.facts: list[Fact] = []
        """The facts of the present step."""

    def hear(self, fact: Fact) -> None:
        """Apply a fact."""
        self.facts.append(fact)
        if isinstance(fact, Placed):
            ids = [f"{ban.network} {ban.reason}" for ban in fact.bans]
            assert not self.news & {*ids}, "it is news twice"
            self.news |= {*ids}
        if isinstance(fact, Placed | Adopted | Restored):
            for ban in fact.bans:
                self.bans[ban.network, ban.scope] = ban.expires
                self.running[ban.network, ban.scope] = ban
        elif isinstance(fact, Refused):
            self.pending.add((fact.ban.network, fact.ban.scope))
            if fact.news is News.KNOWN:
                self.bans.pop((fact.ban.network, fact.ban.scope), None)
        elif isinstance(fact, Over):
            key = (fact.network, fact.scope)
            assert key in self.running or key in self.pending, "it is over twice"
            self.running.pop(key, None)
            self.bans.pop(key, None)


class World:
    """The book, a kernel, a listener, and a model: which bans there must be, and which are pending."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.number = 0
        self.on = True
        self.kernel, self.told, self.book = Kernel(), Told(), Book(Ledger())
        self.displaced: list[Key] = []
        """The bans that gave way in this step, and that the model still has."""
        self.bans: dict[Key, float] = {}
        self.lost: set[Key] = set()
        """The bans that the kernel has lost, and refused, and that are not pending: too many others are."""
        self.pending: dict[Key, tuple[float, News]] = {}
        self.insisted: set[Key] = set()
        self.exempt: list[Network] = []

    def apply(self, steps: Steps[T]) -> T:
        """Carry out steps of the book."""
        answers: Sequence[Outcome] | None = None
        while True:
            try:
                step = steps.send(answers)  # type: ignore[arg-type]
            except StopIteration as end:
                result: T = end.value
                return result
            answers = ()
            if isinstance(step, Batch):
                answers = [self.kernel.answer(change, self.now) for change in step.changes]
            else:
                self.told.hear(step)
                if isinstance(step, Over) and step.how is BanEnd.DISPLACED:
                    self.displaced.append((step.network, step.scope))

    def agree(self) -> None:
        """Check that the book, the listener and the kernel have the bans of the model."""
        ledger = self.book.ledger
        assert {network_of(key): record.expires for key, record in ledger.items()} == self.bans
        assert {key: end for key, end in self.told.bans.items() if key not in self.lost} == self.in_kernel
        assert self.kernel.bans == self.in_kernel
        found = [
            (one.ban.network, one.ban.scope, one.ban.expires, one.news) for one in ledger.pending.values()
        ]
        assert found == [(*key, *value) for key, value in self.pending.items()]
        self.told.pending = {*self.pending}
        forgotten = {(one.network, one.scope) for one in self.told.facts if isinstance(one, Forgotten)}
        for key in forgotten - self.bans.keys() if self.on else ():
            self.told.running.pop(key, None)
        assert self.displaced == []

    # -- the model

    @property
    def in_kernel(self) -> dict[Key, float]:
        """The bans that the kernel must have."""
        return {key: end for key, end in self.bans.items() if key not in self.lost}

    def placed(self, wanted: Iterable[tuple[Key, float]], news: News) -> None:
        """Model an order to place bans. Which ban of a full set gives way is read in the facts."""
        wanted = [*wanted]
        if news is not News.KNOWN:
            self.insisted -= {key for key, _ in wanted}
        made = [fact.bans for fact in self.told.facts if isinstance(fact, Placed | Restored)]
        taken = {(ban.network, ban.scope) for bans in made for ban in bans}
        late = []
        for key, end in wanted:
            if key[0] in self.kernel.refused:
                self.refused(key, end, news)
            elif room_for(key, self.in_kernel):
                self.accepted(key, end)
            else:
                late.append((key, end))
        for key, end in late:
            if key not in taken:
                if self.displaced and self.displaced[0] in self.lost:  # which makes no room
                    self.ended(self.displaced.pop(0))
                self.refused(key, end, news, full=True)
                continue
            gone = self.displaced.pop(0)
            assert self.bans.pop(gone) < end
            assert (gone[0].version, gone[1]) == (key[0].version, key[1])
            self.pending.pop(gone, None)
            self.accepted(key, end)

    def accepted(self, key: Key, end: float) -> None:
        """Model a ban that the kernel accepts."""
        self.bans[key] = end
        self.lost.discard(key)
        self.pending.pop(key, None)

    def ended(self, key: Key) -> None:
        """Model a ban that is over."""
        self.bans.pop(key, None)
        self.lost.discard(key)
        self.pending.pop(key, None)

    def refused(self, key: Key, end: float, news: News, *, full: bool = False) -> None:
        """Model a ban that the kernel refuses, perhaps because a set is full."""
        if key in self.pending or len(self.pending) < MOST_PENDING:
            self.pending[key] = (end, news)
        elif news is News.KNOWN and not full:
            self.bans[key] = end
            self.lost.add(key)

    def removed(self, keys: Iterable[Key]) -> None:
        """Model an order to remove bans."""
        for key in keys:
            if key[0] not in self.kernel.refused:
                self.ended(key)

    def removed_for_good(self, keys: Iterable[Key]) -> None:
        """Model an order to remove bans that is repeated until it succeeds."""
        asked = {*keys}
        self.removed(asked)
        left = {key for key in asked if key[0] in self.kernel.refused}
        for key in left:
            self.pending.pop(key, None)
        self.insisted = self.insisted - asked | left

    # -- the steps

    def do(self, name: str, *arguments: Any) -> None:  # noqa: ANN401 - those of each step
        """Do one step, and compare. While enforcement is off, only time passes."""
        self.told.facts.clear()
        if self.on or name in ("switch", "wait", "refuse"):
            step: Callable[..., None] = getattr(self, f"do_{name}")
            step(*arguments)
        self.agree()

    def a_ban(self, network: Network, scope: Scope, seconds: float) -> Ban:
        """Return a new ban. Its reason is unique."""
        self.number += 1
        return Ban(
            network,
            since=self.now,
            expires=self.now + seconds,
            rule="guess",
            reason=str(self.number),
            scope=scope,
        )

    def do_decide(self, network: Network, scope: Scope, seconds: float, early: int | None) -> None:
        """Place a rule's ban. The kernel may have been asked before, for the same or another length."""
        answer = None
        if early is not None:
            answer = self.kernel.answer(Add(network, early, scope), self.now)
            if answer.error is None and early != seconds:
                answer = None
        ban, key = self.a_ban(network, scope, seconds), (network, scope)
        self.apply(self.book.add_decided(ban, answer, self.now))
        self.placed([(key, ban.expires)], News.NEW)
        if key in self.bans:
            narrower = [(network, one) for one in NARROWER.get(scope, ()) if (network, one) in self.bans]
            self.removed(one for one in narrower if one[1] is not Scope.SIP or self.bans[one] <= ban.expires)

    def do_ban(self, networks: list[Network], seconds: float) -> None:
        """Ban networks for an administrator."""
        self.apply(self.book.ban([self.a_ban(one, Scope.FULL, seconds) for one in networks], self.now))
        wanted = [one for one in networks if not NetworkSet(self.exempt).contains(one)]
        self.placed([((one, Scope.FULL), self.now + seconds) for one in wanted], News.NEW)

    def do_part(self, network: Network, seconds: float) -> None:
        """Place the rest of a wider ban."""
        ban = self.a_ban(network, Scope.FULL, seconds)
        self.apply(self.book.add([ban], News.PART, self.now))
        self.placed([((network, Scope.FULL), ban.expires)], News.PART)

    def do_unban(self, network: Network) -> None:
        """Unban a network with all bans that overlap it."""
        keys = [one for one in {**self.bans, **self.pending} if overlap(one[0], network)]
        assert {key_of(*key) for key in keys} == {*self.book.ledger.overlapping(network, self.now)}
        self.do_unban_keys(keys, retry=False)

    def do_unban_keys(self, keys: list[Key], retry: bool) -> None:  # noqa: FBT001 - a field of the step
        """Unban a list of bans, some of which may not exist."""
        if retry:
            self.apply(self.book.unban_with_retry(key_of(*key) for key in keys))
            self.removed_for_good(keys)
        else:
            failed = self.apply(self.book.unban(key_of(*key) for key in keys))
            assert len(failed) == sum(network in self.kernel.refused for network, _ in keys)
            self.removed(keys)

    def do_exempt(self, networks: list[Network]) -> None:
        """Allow a network, or none."""
        new = NetworkSet(one for one in networks if one not in self.exempt)
        self.exempt = networks
        self.apply(self.book.exclude(Exempt(NetworkSet(networks)), self.now))
        self.removed_for_good(key for key in {**self.bans, **self.pending} if new.contains(key[0]))

    def do_refuse(self, networks: list[Network]) -> None:
        """From now on the kernel refuses the changes of these networks, and of no others."""
        self.kernel.refused = {*networks}

    def do_wait(self, seconds: float) -> None:
        """Advance the clock, and do the periodic work."""
        self.now += seconds
        self.apply(self.book.expire(self.now))
        self.kernel.bans = {key: end for key, end in self.kernel.bans.items() if end > self.now}
        self.bans = {key: end for key, end in self.bans.items() if end > self.now}
        self.lost &= self.bans.keys()
        self.pending = {key: one for key, one in self.pending.items() if one[0] > self.now}
        if self.on:
            self.apply(self.book.retry(self.now))
            self.removed_for_good(self.insisted)
            for news in News:
                self.placed([(key, end) for key, (end, one) in self.pending.items() if one is news], news)

    def do_lose(self, networks: list[Network]) -> None:
        """Remove the bans of these networks from the kernel, and restore them."""
        lost = [key for key in self.bans if key[0] in networks]
        self.kernel.bans = {key: end for key, end in self.kernel.bans.items() if key not in lost}
        self.apply(self.book.restore([key_of(*key) for key in lost], self.now))
        self.lost.update(lost)
        for key in lost:
            full = not room_for(key, self.in_kernel)
            self.lost.remove(key)
            if key[0] in self.kernel.refused or full:
                end = self.bans.pop(key)
                if key not in self.pending:
                    self.refused(key, end, News.KNOWN, full=key[0] not in self.kernel.refused)

    def do_adopt(self, network: Network, scope: Scope, seconds: float) -> None:
        """Adopt a ban that another program has added."""
        key = (network, scope)
        if key in self.bans or not room_for(key, self.in_kernel):
            return
        self.kernel.bans[key] = self.now + seconds
        self.apply(self.book.adopt({key_of(*key): seconds}, self.now))
        self.accepted(key, self.now + seconds)
        if NetworkSet(self.exempt).contains(network):
            self.removed_for_good([key])

    def do_switch(self) -> None:
        """Switch enforcement off, or on: then the recorded bans with time left are restored."""
        self.on = not self.on
        if not self.on:
            kept = {**self.told.running}
            self.apply(self.book.forget())
            for bans in (self.kernel.bans, self.told.bans, self.bans, self.lost, self.pending, self.insisted):
                bans.clear()
            self.told.running = kept
            return
        self.told.running = {key: ban for key, ban in self.told.running.items() if ban.expires > self.now}
        stored = [*self.told.running.values()]
        self.apply(self.book.add(stored, News.KNOWN, self.now))
        self.placed([((ban.network, ban.scope), ban.expires) for ban in stored], News.KNOWN)


@pytest.mark.parametrize(
    ("left", "asked"),
    [
        (-5.0, 1),
        (0.2, 1),
        (1.0, 1),
        (1.1, 2),
        (2_147_482.5, MAX_TIMEOUT),
        (1e12, MAX_TIMEOUT),
        (inf, MAX_TIMEOUT),
    ],
)
def test_the_kernel_gets_whole_seconds(left: float, asked: int) -> None:
    """The time that a ban has left is rounded up, and is never 0, which would be for ever."""
    network = ip_network("192.0.2.1")
    ban = Ban(network, since=0.0, expires=left, rule="guess", reason="")
    assert next(Book(Ledger()).add([ban], News.NEW, 0.0)) == Batch([Add(network, asked)])


def test_parts_have_a_limited_length() -> None:
    """Each part has as many items as one call to the kernel may change, and the last one has the rest."""
    parts = [*in_parts(range(2 * CHUNK + 1))]
    assert [len(part) for part in parts] == [CHUNK, CHUNK, 1]
    assert [*chain.from_iterable(parts)] == [*range(2 * CHUNK + 1)]
    assert [*in_parts(())] == []


@settings(max_examples=4 * settings().max_examples)
@given(st.lists(STEPS, min_size=10, max_size=60))
def test_the_book_agrees_with_a_plain_model(steps: list[tuple[Any, ...]]) -> None:
    """Book, kernel, facts and model agree after each step; no ban is news twice, and each is over once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledgers, "MOST_PENDING", MOST_PENDING)
        world = World()
        for step in steps:
            world.do(*step)
        if not world.on:
            world.do("switch")
        world.do("wait", FOREVER)
        assert world.told.running == {}
