"""Writes lists of networks into the kernel: a short one at once, a long one in steps.

The kernel takes seconds for 250,000 networks. So :meth:`Filler.run` writes a list of more than ``SHORT``
networks. It sorts the list and makes the calls to the kernel in a thread, so that the event loop goes on. It
pauses after each step for as long as the step took, so that bans can go between. So can lists that drop
nothing, such as that of the friends, if the long list drops.
If a list cannot be written, :meth:`Filler.run` tries again, after a pause that doubles each time.
"""

import asyncio
import inspect
import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain, islice

import structlog

from ringfence.clock import Backoff
from ringfence.errors import FirewallError
from ringfence.firewall import network_lists
from ringfence.firewall.contract import Backend, ListSteps
from ringfence.firewall.network_lists import NetworkList
from ringfence.threads import Threads
from ringfence.values.network import Network, RangedNetworks

SHORT = 2_000
"""The maximum number of networks in a list that is written at once, and not in steps by a task."""

AT_ONCE = 0.03
"""Seconds of work, without calls to the kernel, after which a task continues writing a short list."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""The shortest and longest time in seconds until a failed list is tried again.

The time grows, because a list may fail again and again until the kernel has free memory.
"""


class ListContents:
    """The wanted contents of the kernel's lists. By default, all are empty."""

    def contents(self, target: NetworkList) -> Iterable[Network]:  # noqa: ARG002 - for a subclass
        """Return the networks that the list ``target`` must have, for use by any thread."""
        return ()


class Filler:
    """Writes the networks of the kernel's lists, which ``lists`` returns, into the kernel.

    While :meth:`run` does not run yet (at the start), each list is written at once, whatever its length.
    """

    def __init__(self, backend: Backend, lists: ListContents) -> None:
        self.unfilled: set[NetworkList] = set()
        """The lists that could not be written, and that will be tried again."""
        self.error = ""
        """The latest error; "" if every list is written."""
        self._empty = set(network_lists.every())  # not written completely since the kernel's sets were made
        self._backend = backend
        self._lists = lists
        self._backoffs: dict[NetworkList, Backoff] = {}
        self._due: dict[NetworkList, float] = {}
        self._running: dict[NetworkList, ListSteps] = {}
        self._has_task = False
        # Of its own: in the shared threads a transaction could wait for a slow look-up of names.
        self.thread = Threads(1, "kernel-lists")
        self._wake = asyncio.Event()
        self._log = structlog.get_logger()

    @property
    def filling(self) -> frozenset[NetworkList]:
        """The lists that are being written now."""
        return frozenset(self._running)

    @property
    def incomplete(self) -> frozenset[NetworkList]:
        """The lists that may lack networks in the kernel: those that are empty still, or that it refused."""
        return frozenset(self._empty | self.unfilled)

    def fill(self, *targets: NetworkList) -> None:
        """Write the networks of some lists into the kernel; log a failure, and try again later."""
        for target in targets:
            self._backoffs.pop(target, None)
            self._write(target)

    def refill(self) -> None:
        """Write all lists into the kernel, whose sets may be new and empty."""
        self._empty = set(network_lists.every())
        self.fill(*network_lists.every())

    def stop(self) -> None:
        """Stop writing unfinished lists into the kernel, and forget all retries."""
        for target in [*self._running]:
            self._abandon(target)
        self._due.clear()
        self._backoffs.clear()
        self.unfilled.clear()
        self.error = ""

    async def run(self) -> None:
        """Continue to write long lists into the kernel, and retry failed ones, until cancelled."""
        self._has_task = True
        try:
            while True:
                if not self._running:
                    await self._wait_for_work()
                now = time.monotonic()
                for target in [target for target, due in self._due.items() if due <= now]:
                    self._write(target)
                if self._running:
                    first = min(self._running, key=lambda one: one.drops is not None)
                    await self._continue(first, self._running[first])
        finally:
            self._has_task = False
            self.stop()

    async def _wait_for_work(self) -> None:
        pause = max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._wake.wait()
        self._wake.clear()

    def _write(self, target: NetworkList) -> None:
        self._abandon(target)
        self._due.pop(target, None)
        passing = network_lists.ALLOW, *network_lists.PASSING
        if target.drops is not None and any(one in self._running and one in self._empty for one in passing):
            self._due[target] = time.monotonic()  # after those: else networks that must pass are dropped
            self._wake.set()
            return
        try:
            done = self._begin(target)
        except FirewallError as error:
            self._failed(target, error)
        else:
            if done:
                self._written(target)

    def _begin(self, target: NetworkList) -> bool:
        """Start to write the list ``target`` into the kernel; return whether that is done already."""
        contents = self._lists.contents(target)
        if isinstance(contents, RangedNetworks):
            short = len(contents) <= SHORT
        else:
            networks = iter(contents)
            first = list(islice(networks, SHORT + 1))
            contents, short = chain(first, networks), len(first) <= SHORT
        steps = self._backend.replace_list_in_steps(target, contents)
        until = time.monotonic() + AT_ONCE
        if not self._has_task or short:
            for call in steps:
                if call is not None:
                    began = time.monotonic()
                    call()
                    until += time.monotonic() - began  # it may have waited for a call in the thread
                elif self._has_task and time.monotonic() > until:
                    break
            else:
                return True
        self._running[target] = steps
        self._wake.set()
        return False

    async def _continue(self, target: NetworkList, steps: ListSteps) -> None:
        """Make the next step of writing a list, with its calls to the kernel, and pause."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self.thread, _sort, steps)
            began = time.monotonic()
            while self._running.get(target) is steps:
                call = next(steps)
                if call is None:
                    await asyncio.sleep(time.monotonic() - began)
                    return
                await loop.run_in_executor(self.thread, call)
        except StopIteration:
            del self._running[target]
            self._written(target)
        except FirewallError as error:
            if self._running.get(target) is steps:
                del self._running[target]
                self._failed(target, error)

    def _abandon(self, target: NetworkList) -> None:
        steps = self._running.pop(target, None)
        # ``_continue`` does not go on with the generator, because it is no longer in ``_running``. While the
        # thread sorts in the generator, close() raises ValueError; it has not yet changed the kernel. The
        # kernel may keep the new set of ipset for now: the next replacement removes it.
        if steps is not None:
            with suppress(ValueError, FirewallError):
                steps.close()

    def _failed(self, target: NetworkList, error: FirewallError) -> None:
        self.error = str(error)
        if target not in self.unfilled:
            self._log.error("lists.failed", list=str(target), error=str(error))
        self.unfilled.add(target)
        backoff = self._backoffs.setdefault(target, Backoff(FIRST_PAUSE, LONGEST_PAUSE))
        self._due[target] = time.monotonic() + backoff.next()
        self._wake.set()

    def _written(self, target: NetworkList) -> None:
        self._empty.discard(target)
        if target in self.unfilled:
            self.unfilled.discard(target)
            self._log.info("lists.written", list=str(target))
            if not self.unfilled:
                self.error = ""


def _sort(steps: ListSteps) -> None:
    """Run the first step of writing a list into the kernel, unless this step has run.

    The first step sorts and compares the networks, and does not access the kernel.
    """
    with suppress(StopIteration):  # ``_abandon`` closed the generator just now
        if inspect.getgeneratorstate(steps) == inspect.GEN_CREATED:
            next(steps)
