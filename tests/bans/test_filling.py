"""The background writer of kernel lists: long lists in steps, the newest content, retries after errors."""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from ipaddress import ip_network
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from ringfence.bans import filling
from ringfence.bans.filling import SHORT, Filler, ListContents
from ringfence.errors import FirewallError
from ringfence.firewall import network_lists
from ringfence.firewall.contract import ListSteps
from ringfence.firewall.memory import MemoryBackend
from ringfence.firewall.network_lists import NetworkList
from ringfence.values.network import Network

FEW = [ip_network("192.0.2.1")]
MANY = [ip_network((0x0A000000 + n, 32)) for n in range(SHORT + 1)]


class Written(MemoryBackend, ListContents):
    """A backend that writes a list in 20 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted: dict[NetworkList, list[Network]] = {}
        self.rolls: dict[NetworkList, list[Network]] = {}
        self.steps: list[NetworkList] = []
        self.closed = 0
        self.error_at_end: FirewallError | None = None
        self.began: list[float] = []
        self.error: FirewallError | None = None
        self.call: Callable[[], None] | None = None
        self.on_first_step: Callable[[], object] = lambda: None
        self.on_step: Callable[[], object] = lambda: None
        self.filler = Filler(self, self)

    def contents(self, target: NetworkList) -> list[Network]:
        """Return the wanted networks of a list."""
        return self.wanted[target]

    def replace_list_in_steps(self, which: NetworkList, networks: Iterable[Network]) -> ListSteps:
        """Replace a list."""
        wanted = list(networks)
        self.began.append(time.monotonic())
        try:
            self.on_first_step()
            yield None
            for _ in range(20):
                self.steps.append(which)
                self.on_step()
                if self.error is not None:
                    raise self.error
                yield self.call
            self.rolls[which] = wanted
        except GeneratorExit:
            self.closed += 1
            if self.error_at_end is not None:
                raise self.error_at_end from None
            raise

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Let the filler's task run meanwhile."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.filler.run())
            await asyncio.sleep(0)
            yield
            task.cancel()

    async def until_done(self) -> None:
        """Wait until no list is being written."""
        async with asyncio.timeout(20):
            while self.filler.filling:  # noqa: ASYNC110 - any number of turns
                await asyncio.sleep(0)


@pytest.fixture(name="written")
def _written() -> Written:
    return Written()


def test_before_the_daemon_runs_all_is_written_at_once(written: Written) -> None:
    """Before the daemon runs, a list of any length is completely written when the call returns."""
    written.wanted |= {network_lists.DENY: MANY, network_lists.ALLOW: FEW}
    written.filler.fill(network_lists.DENY, network_lists.ALLOW)
    assert written.rolls == written.wanted


def test_a_long_roll_lets_others_go_on(written: Written) -> None:
    """Other tasks run between two steps of a long list, and a short list is written at once meanwhile."""
    written.wanted |= {network_lists.DENY: MANY, network_lists.FRIENDS: FEW}

    async def run() -> int:
        async with written.running():
            written.filler.fill(network_lists.DENY)
            turns = 0
            while len(written.steps) < 5:
                turns += 1
                await asyncio.sleep(0)
            written.filler.fill(network_lists.FRIENDS)
            assert written.rolls == {network_lists.FRIENDS: FEW}
            assert written.filler.filling == {network_lists.DENY}
            await written.until_done()
        return turns

    assert asyncio.run(run()) >= 4
    assert written.rolls == written.wanted


def test_long_friends_do_not_wait_for_a_long_list_that_drops(written: Written) -> None:
    """Friends that are too many to be written at once are written between the steps of a list that drops."""
    written.wanted |= {network_lists.EXTERNAL: MANY, network_lists.FRIENDS: MANY}

    async def run() -> None:
        async with written.running():
            written.filler.fill(network_lists.EXTERNAL)
            while len(written.steps) < 3:  # noqa: ASYNC110 - any number of turns
                await asyncio.sleep(0)
            written.filler.fill(network_lists.FRIENDS)
            await written.until_done()

    asyncio.run(run())
    assert [*written.rolls] == [network_lists.FRIENDS, network_lists.EXTERNAL]


def test_friends_that_failed_do_not_wait_for_a_long_list_that_drops(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Friends that could not be written are tried again between the steps of a list that drops."""
    monkeypatch.setattr(filling, "FIRST_PAUSE", 0.02)
    written.wanted |= {network_lists.EXTERNAL: MANY, network_lists.FRIENDS: FEW}
    errors = [FirewallError("no memory")]

    def step() -> None:
        time.sleep(0.005)  # the long list takes longer than the pause
        if written.steps[-1] is network_lists.FRIENDS and errors:
            raise errors.pop()

    written.on_step = step

    async def run() -> None:
        async with written.running():
            written.filler.fill(network_lists.FRIENDS, network_lists.EXTERNAL)
            await written.until_done()

    asyncio.run(run())
    assert [*written.rolls] == [network_lists.FRIENDS, network_lists.EXTERNAL]


def test_networks_that_must_pass_are_written_before_any_is_dropped(written: Written) -> None:
    """After damage, a short deny list waits until a long allow list is complete; others do not wait."""
    written.wanted |= dict.fromkeys(network_lists.every(), FEW) | {network_lists.ALLOW: MANY}

    async def run() -> None:
        async with written.running():
            written.filler.refill()
            assert network_lists.FRIENDS in written.rolls
            while len(written.rolls) < len(written.wanted):  # noqa: ASYNC110 - any number of turns
                await asyncio.sleep(0)

    asyncio.run(run())
    order = [*written.rolls]
    dropping = [order.index(one) for one in network_lists.every() if one.drops is not None]
    assert order.index(network_lists.ALLOW) < min(dropping)


def test_a_short_list_that_takes_long_is_continued_later(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the work on a short list takes long, a task continues it; a call to the kernel does not count."""
    now = 1_000.0
    monkeypatch.setattr(filling, "time", SimpleNamespace(monotonic=lambda: now))
    written.wanted |= {network_lists.FRIENDS: FEW}

    def pass_time(seconds: float) -> None:
        nonlocal now
        now += seconds

    def step() -> None:
        written.call = (lambda: pass_time(100.0)) if len(written.steps) == 1 else None
        pass_time(1.0 if len(written.steps) == 3 else 0.0)

    written.on_step = step

    async def run() -> None:
        async with written.running():
            written.filler.fill(network_lists.FRIENDS)
            assert len(written.steps) == 3
            assert written.filler.filling == {network_lists.FRIENDS}
            await written.until_done()

    asyncio.run(run())
    assert written.rolls == written.wanted


def test_the_event_loop_goes_on_during_a_call(written: Written) -> None:
    """The calls of a long list run in their own thread; other tasks run meanwhile, and it is complete."""
    written.wanted[network_lists.DENY] = MANY
    begun, goes_on = threading.Event(), threading.Event()
    threads = set[str]()
    written.on_first_step = lambda: threads.add(threading.current_thread().name)

    def call() -> None:
        threads.add(threading.current_thread().name)
        begun.set()
        assert goes_on.wait(20)

    written.call = call

    async def run() -> None:
        async with written.running():
            written.filler.fill(network_lists.DENY)
            while not begun.is_set():  # noqa: ASYNC110 - any number of turns
                await asyncio.sleep(0)
            goes_on.set()
            await written.until_done()
            assert network_lists.DENY not in written.filler.incomplete

    asyncio.run(run())
    assert written.rolls == written.wanted
    [thread] = threads
    assert thread.startswith("kernel-lists")


def test_the_newest_wish_wins(written: Written) -> None:
    """A newer content of the same list, or a stop, cancels a write that is not complete."""

    async def run() -> None:
        async with written.running():
            for wanted, steps in ((MANY, 3), (MANY[1:], 0), (MANY[:-1], 0)):
                written.wanted[network_lists.DENY] = wanted
                written.filler.fill(network_lists.DENY)
                while len(written.steps) < steps:  # noqa: ASYNC110 - any number of turns
                    await asyncio.sleep(0)
            await written.until_done()
            assert written.rolls == {network_lists.DENY: MANY[:-1]}
            written.wanted[network_lists.DENY] = MANY
            written.filler.fill(network_lists.DENY)
            written.filler.stop()

    asyncio.run(run())
    assert written.rolls == {network_lists.DENY: MANY[:-1]}
    assert written.filler.filling == frozenset()
    assert written.closed >= 1


@pytest.mark.parametrize("running", [True, False])
def test_what_failed_is_tried_again(
    written: Written,
    running: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """A list that cannot be written is reported with its error and stays unfilled until a retry succeeds."""
    written.wanted |= {network_lists.DENY: MANY}

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(written.filler.run()) if running else None
            await asyncio.sleep(0)
            written.error = FirewallError("no memory")
            with capture_logs() as logs:
                for _ in range(2):
                    written.filler.fill(network_lists.DENY)
                    await written.until_done()
            lines = [(one["event"], one["list"], one["error"]) for one in logs]
            assert lines == [("lists.failed", str(network_lists.DENY), "no memory")]  # once
            assert (written.filler.unfilled, written.filler.error) == ({network_lists.DENY}, "no memory")
            written.error = None
            written.filler.fill(network_lists.DENY)
            await written.until_done()
            assert (written.filler.unfilled, written.filler.error) == (set(), "")
            if task is not None:
                task.cancel()

    asyncio.run(run())
    assert written.rolls == written.wanted


@pytest.mark.parametrize("networks", [FEW, MANY], ids=["short", "long"])
def test_retries_have_growing_pauses(
    written: Written, networks: list[Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pause is twice the one before, up to the longest; the error clears when all lists are written."""
    monkeypatch.setattr(filling, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(filling, "LONGEST_PAUSE", 0.08)
    written.wanted |= {network_lists.DENY: networks}
    written.error = FirewallError("no memory")

    async def run() -> None:
        async with written.running():
            written.filler.fill(network_lists.DENY)
            await until(lambda: len(written.began) == 6)
            written.error = None
            await until(lambda: written.rolls == written.wanted)
            await written.until_done()
            assert (written.filler.unfilled, written.filler.error) == (set(), "")

    asyncio.run(run())
    gaps = [after - before for before, after in itertools.pairwise(written.began)]
    assert len(gaps) == 6
    assert all(gap >= least for gap, least in zip(gaps, (0.02, 0.04, 0.08, 0.08, 0.08, 0.08), strict=True))


def test_a_change_is_written_at_once_after_failures(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new list is written without a pause, and if it fails, its pauses begin with the shortest."""
    monkeypatch.setattr(filling, "LONGEST_PAUSE", 600.0)
    monkeypatch.setattr(filling, "FIRST_PAUSE", 300.0)
    written.wanted |= {network_lists.DENY: FEW}
    written.error = FirewallError("no memory")

    async def run() -> None:
        async with written.running():
            written.filler.fill(network_lists.DENY)
            monkeypatch.setattr(filling, "FIRST_PAUSE", 0.02)
            written.filler.fill(network_lists.DENY)
            await until(lambda: len(written.began) == 3)
            written.error = None
            written.filler.fill(network_lists.DENY)
            assert written.rolls == written.wanted
            await asyncio.sleep(0.1)

    asyncio.run(run())
    assert len(written.began) == 4


def test_what_is_given_up_is_not_tried_again(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a stop nothing is written any more."""
    monkeypatch.setattr(filling, "FIRST_PAUSE", 0.02)
    written.wanted |= {network_lists.DENY: FEW}
    written.error = FirewallError("no memory")

    async def run() -> None:
        async with written.running():
            written.filler.fill(network_lists.DENY)
            written.filler.stop()
            await asyncio.sleep(0.1)

    asyncio.run(run())
    assert len(written.began) == 1
    assert (written.filler.unfilled, written.filler.error) == (set(), "")


def test_what_cannot_be_given_up_cleanly_stops_nothing(written: Written) -> None:
    """If the kernel keeps what was begun, because another program lists it, the caller goes on."""
    written.wanted |= {network_lists.DENY: MANY, network_lists.ALLOW: FEW}
    written.error_at_end = FirewallError("the set is in use")
    written.call = lambda: time.sleep(0.05)  # so that the list is not complete before it is given up

    async def run() -> None:
        async with written.running():
            written.filler.fill(network_lists.DENY)
            await until(lambda: len(written.steps) > 2)
            written.filler.stop()
            written.filler.fill(network_lists.ALLOW)
            await written.until_done()

    asyncio.run(run())
    assert (written.closed, written.rolls) == (1, {network_lists.ALLOW: FEW})


async def until(true: Callable[[], bool]) -> None:
    """Wait until the condition is true."""
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - what is waited for is a condition, not an event
            await asyncio.sleep(0.001)
