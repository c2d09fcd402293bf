"""Events that gather, on real descriptors, with a clock that the test advances; and the loop in real time."""

import asyncio
import errno
import itertools
import os
import selectors
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from statistics import median

import pytest
from attrs import define, field
from structlog.testing import capture_logs

from ringfence.gathering import (
    CALM,
    ONSET,
    PERIOD,
    QUIET,
    GatheringLoop,
    GatheringSelector,
    more_waits,
    patient,
)

REST = 0.05


def pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets, of which the first one never waits."""
    here, there = socket.socketpair()
    stack.enter_context(here)
    stack.enter_context(there)
    here.settimeout(0)
    return here, there


@define
class Bed:
    """A selector with a patient socket and an eager one, a clock, and the rest that it asks for."""

    patient: tuple[socket.socket, socket.socket]
    eager: tuple[socket.socket, socket.socket]
    now: float = 100.0
    rest: float = 0.0
    selector: GatheringSelector = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Register both sockets."""
        self.selector = GatheringSelector(lambda: self.rest, lambda: self.now)
        self.selector.mark(self.patient[0].fileno())
        for here, _ in (self.patient, self.eager):
            self.selector.register(here, selectors.EVENT_READ)

    def ready(self, timeout: float | None = 0) -> set[str]:
        """Return the names of the sockets that the selector returns."""
        found = self.selector.select(timeout)
        names = {self.patient[0]: "patient", self.eager[0]: "eager"}
        return {names[key.fileobj] for key, _ in found}  # type: ignore[index]

    def load(self, seconds: float) -> None:
        """Handle an event each half a millisecond for this many seconds."""
        end = self.now + seconds
        while self.now <= end:
            self.ready()
            self.now += 0.0005


@pytest.fixture
def bed() -> Iterator[Bed]:
    """Return a bed whose patient socket is always ready."""
    with ExitStack() as stack:
        bed = Bed(pair(stack), pair(stack))
        stack.enter_context(closing(bed.selector))
        bed.patient[1].send(b"x")
        yield bed


def test_patient_events_gather_while_the_selector_rests(bed: Bed) -> None:
    """Under sustained load, what arrives within a rest is handled together after it."""
    bed.load(2 * ONSET)
    bed.rest = REST
    bed.now += PERIOD
    assert bed.ready() == {"patient"}
    assert bed.ready() == set()
    assert bed.ready(0.01) == set()
    bed.now += REST
    assert bed.ready(None) == {"patient"}


def test_a_rest_that_is_no_longer_asked_for_ends(bed: Bed) -> None:
    """What was among the last events, such as a friend's guess, may forbid the rest that followed them."""
    bed.load(2 * ONSET)
    bed.rest = REST
    bed.now += PERIOD
    bed.ready()
    bed.rest = 0.0
    assert bed.ready() == set()
    bed.now += PERIOD
    assert bed.ready() == {"patient"}


def test_other_events_do_not_wait(bed: Bed) -> None:
    """An eager descriptor ends the wait at once, and is returned with patient ones after the rest."""
    bed.load(2 * ONSET)
    bed.rest = REST
    bed.now += PERIOD
    bed.ready()
    bed.eager[1].send(b"x")
    assert bed.ready(None) == {"eager"}
    bed.now += REST
    assert bed.ready(None) == {"eager", "patient"}


def test_a_rest_ends_by_itself(bed: Bed) -> None:
    """Without other events, the selector waits until the rest is over, and then returns patient ones."""
    bed.load(2 * ONSET)
    bed.rest = 0.002
    bed.ready()
    assert bed.ready(None) == {"patient"}
    assert bed.ready(1.0) == {"patient"}


def test_a_calm_host_does_not_rest(bed: Bed) -> None:
    """After a pause of ``CALM``, no event waits for ``ONSET`` seconds, whatever rest is asked for."""
    bed.load(2 * ONSET)
    bed.rest = REST
    bed.now += CALM
    bed.load(ONSET - 0.001)
    assert bed.ready() == {"patient"}
    assert bed.ready() == {"patient"}
    bed.now += 0.002
    assert bed.ready() == {"patient"}
    assert bed.ready() == set()


def test_without_a_rest_each_event_is_handled_at_once(bed: Bed) -> None:
    """Within ``ONSET`` after a pause, no event waits."""
    bed.load(ONSET - 0.001)
    assert bed.ready() == {"patient"}
    assert bed.ready() == {"patient"}


def test_sustained_load_is_handled_once_in_a_period(bed: Bed) -> None:
    """After ``ONSET`` there is a rest of ``PERIOD`` in any case, until a pause of ``QUIET``."""
    bed.load(2 * ONSET)
    bed.now += PERIOD
    assert bed.ready() == {"patient"}
    assert bed.ready() == set()
    bed.now += PERIOD + QUIET
    assert bed.ready() == {"patient"}
    assert bed.ready() == {"patient"}


def test_a_crowd_ends_a_rest() -> None:
    """A rest ends when much waits at the connection, not when a little does; a closed one is forgotten."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        there = stack.enter_context(socket.create_connection(server.getsockname()))
        here = stack.enter_context(server.accept()[0])
        here.settimeout(0)
        now = 100.0
        selector = stack.enter_context(closing(GatheringSelector(lambda: 60.0, lambda: now)))
        number = here.fileno()
        selector.mark(number)
        selector.end_rest_at(here, 10_000)
        selector.register(here, selectors.EVENT_READ)

        for _ in range(2):  # sustained load
            there.send(b"x")
            assert len(selector.select(1)) == 1
            assert here.recv(100) == b"x"
            now += 2 * ONSET
        there.send(b"x" * 1_000)
        assert selector.select(0.02) == []
        there.send(b"x" * 20_000)
        assert len(selector.select(10)) == 1

        selector.unregister(here)
        here.close()
        selector.unmark(number)
        assert selector.select(0) == []


def test_a_mark_survives_a_new_registration(bed: Bed) -> None:
    """A descriptor that is unregistered and registered again stays patient, until its mark is removed."""
    bed.load(2 * ONSET)
    here = bed.patient[0]
    assert bed.selector.get_key(here).events == selectors.EVENT_READ
    assert bed.selector.modify(here, selectors.EVENT_READ, "data").data == "data"
    bed.selector.unregister(here)
    assert here not in bed.selector.get_map()
    bed.selector.register(here.fileno(), selectors.EVENT_READ)
    bed.rest = REST
    bed.now += PERIOD
    assert len(bed.selector.select(0)) == 1
    assert bed.selector.select(0) == []

    bed.selector.unmark(here.fileno())
    assert len(bed.selector.select(0)) == 1
    assert len(bed.selector.select(0)) == 1


@pytest.mark.parametrize("rest", [0.0, REST])
def test_a_command_does_not_wait_during_a_flood(rest: float) -> None:
    """While 1 000 packets a second arrive at a patient socket, an eager one is answered within 20 ms.

    The median counts: another process may have the processor for longer.
    """
    selector = GatheringSelector(lambda: rest)
    with ExitStack() as stack, asyncio.Runner(loop_factory=lambda: GatheringLoop(selector)) as runner:
        took, reads = runner.run(_flooded(stack))
    assert median(took) < 0.02
    if rest:
        assert reads <= 1_000 * ONSET + 0.5 / REST + 2


async def _flooded(stack: ExitStack) -> tuple[list[float], int]:
    """Return how long each command waited for its answer (seconds), and how often packets were read."""
    loop = asyncio.get_running_loop()
    (packets, sender), (commands, user) = pair(stack), pair(stack)
    took: list[float] = []
    reads, ends = 0, loop.time() + 0.5

    def read() -> None:
        nonlocal reads
        reads += 1
        packets.recv(100_000)

    async def flood() -> None:
        while loop.time() < ends:
            sender.send(b"x")
            await asyncio.sleep(0.001)

    loop.add_reader(packets, read)
    with patient(packets.fileno()):
        async with asyncio.TaskGroup() as group:
            group.create_task(flood())
            while loop.time() < ends:
                await asyncio.sleep(0.013)
                began = loop.time()
                user.send(b"x")
                await loop.sock_recv(commands, 1)
                took.append(loop.time() - began)
    loop.remove_reader(packets)
    return took, reads


def test_a_closed_descriptor_and_another_loop_are_left_alone() -> None:
    """A descriptor of -1 is not marked, and in an ordinary loop nothing is."""

    async def marked(descriptor: int) -> None:
        with patient(descriptor):
            await asyncio.sleep(0)

    asyncio.run(marked(0))
    selector = GatheringSelector(lambda: REST)
    with asyncio.Runner(loop_factory=lambda: GatheringLoop(selector)) as runner:
        runner.run(marked(-1))


@pytest.mark.parametrize(("code", "traceback"), [(errno.EMFILE, False), (errno.EIO, True)])
def test_a_lack_of_descriptors_is_one_line(
    code: int, caplog: pytest.LogCaptureFixture, *, traceback: bool
) -> None:
    """If asyncio cannot accept a connection, the log has one line about it; a defect has its traceback."""
    error = OSError(code, os.strerror(code))
    with closing(GatheringLoop(GatheringSelector(lambda: REST))) as loop, capture_logs() as logs:
        loop.call_exception_handler({"message": "socket.accept() failed", "exception": error})

    lines = [(one["what"], one["error"]) for one in logs]
    assert lines == ([] if traceback else [("socket.accept() failed", "Too many open files")])
    assert [bool(record.exc_info) for record in caplog.records] == ([True] if traceback else [])


def test_what_was_left_unread_ends_the_rest(bed: Bed) -> None:
    """Who reads a part of what waits says so, and is called again at once."""
    bed.load(2 * ONSET)
    bed.rest = REST
    bed.now += PERIOD
    assert bed.ready() == {"patient"}
    bed.selector.end_rest()
    assert bed.ready() == {"patient"}
    assert bed.ready() == set()


def test_a_reader_that_leaves_something_is_called_again() -> None:
    """A reader that takes one byte at a time gets ten without a rest, which would last for a minute."""
    ticks = itertools.count(step=(ONSET + CALM) / 4)  # two for each event: sustained load
    selector = GatheringSelector(lambda: 60.0, lambda: next(ticks))

    async def read_ten(stack: ExitStack) -> None:
        (here, there), left = pair(stack), iter(range(9, -1, -1))
        done = asyncio.get_running_loop().create_future()

        def read() -> None:
            here.recv(1)
            if next(left):
                more_waits()
            else:
                done.set_result(None)

        there.send(bytes(10))
        asyncio.get_running_loop().add_reader(here, read)
        with patient(here.fileno()):
            async with asyncio.timeout(20):
                await done
        asyncio.get_running_loop().remove_reader(here)

    with ExitStack() as stack, asyncio.Runner(loop_factory=lambda: GatheringLoop(selector)) as runner:
        runner.run(read_ten(stack))
