"""Threads that are started together, and what happens if the kernel refuses one."""

import _thread
import asyncio
import errno
import gc
import selectors
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from ringfence import threads
from ringfence.bounded_http import Deadline
from ringfence.errors import StartError
from ringfence.threads import SHARED, ThreadedLoop, Threads, start_aside


@contextmanager
def refused(after: int = 0) -> Iterator[None]:
    """Refuse each new thread, as the kernel does, after ``after`` of them were granted."""
    granted, start = 0, threading._start_new_thread  # type: ignore[attr-defined]

    def refuse(*arguments: object) -> int:
        nonlocal granted
        granted += 1
        if granted > after:
            raise RuntimeError("can't start new thread")
        return int(start(*arguments))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "_start_new_thread", refuse)
        patch.setattr(_thread, "start_new_thread", refuse)
        yield


def test_all_threads_exist_from_the_start() -> None:
    """After the start no work needs a new thread, even if all of them work at the same time."""
    with Threads(3, "some") as some:
        some.start()
        together = threading.Barrier(3, timeout=60)
        with refused():
            done = [some.submit(together.wait) for _ in range(3)]

            assert sorted(one.result(60) for one in done) == [0, 1, 2]


@pytest.mark.parametrize("granted", [0, 1, 2])
def test_a_refused_thread_is_an_error_with_a_fix(granted: int) -> None:
    """The error names the limit to raise. When the kernel grants threads again, the next call succeeds."""
    with Threads(3, "some") as some:
        with refused(granted):
            for start in (some.start, lambda: some.submit(int)):
                with pytest.raises(StartError, match=r"cannot start a thread: .*; fix: .*TasksMax"):
                    start()
                break
        assert some.submit(int).result(60) == 0


def test_a_thread_aside_is_refused_with_the_same_error() -> None:
    """A thread that nothing waits for runs its work, or is refused with a fix."""
    done = threading.Event()
    start_aside(done.set, "one")
    assert done.wait(60)
    with refused(), pytest.raises(StartError, match="fix: "):
        start_aside(done.set, "other")


def test_a_request_by_http_without_a_thread_fails() -> None:
    """If the timer of a request, or the thread that looks up its name, is refused, that is an OSError."""
    with refused(), pytest.raises(OSError, match="cannot start a thread"), Deadline(60.0):
        pass
    with Deadline(60.0) as deadline, refused(), pytest.raises(OSError, match="cannot start a thread"):
        deadline.resolve("127.0.0.1", 80)


def test_a_loop_starts_no_other_thread() -> None:
    """Work in threads, the look-up of a name, a child process and the end of the loop need no new thread."""

    async def work() -> tuple[int, object, int]:
        with refused():
            number = await asyncio.to_thread(lambda: 1)
            found = await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)
            child = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
            return number, bool(found), await child.wait()

    with asyncio.Runner(loop_factory=ThreadedLoop) as runner:
        assert runner.run(work()) == (1, True, 0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(threading, "_start_new_thread", None)
            runner.close()


@pytest.mark.parametrize("granted", [0, SHARED - 1])
def test_a_loop_without_threads_is_refused(granted: int) -> None:
    """If a shared thread is refused, the loop is not made, and its work does not begin."""
    begun = []

    async def work() -> None:
        begun.append(1)

    with refused(granted), pytest.raises(StartError):
        threads.run(work())
    assert begun == []


WHAT_A_LOOP_NEEDS = {"socketpair": (socket, "socketpair"), "epoll": (selectors.DefaultSelector, "__init__")}


@pytest.mark.parametrize("what", WHAT_A_LOOP_NEEDS)
def test_a_loop_without_descriptors_is_refused(
    what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the kernel refuses a descriptor, the error names the limit to raise, and Python prints nothing."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(*WHAT_A_LOOP_NEEDS[what], refuse)
    with pytest.raises(StartError, match=r"event loop: Too many open files; fix: .*LimitNOFILE"):
        ThreadedLoop()
    gc.collect()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("result", [1, None])
def test_a_coroutine_is_run(result: object) -> None:
    """The result of the coroutine is returned."""

    async def work() -> object:
        return await asyncio.to_thread(lambda: result)

    run: Callable[..., object] = threads.run
    assert run(work()) is result


def test_another_loop_waits_for_children_afterwards() -> None:
    """After the loop has ended, another kind of loop still starts child processes."""

    async def nothing() -> None:
        pass

    async def child() -> int:
        started = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
        return await started.wait()

    threads.run(nothing())
    other = asyncio.new_event_loop()
    try:
        assert other.run_until_complete(child()) == 0
    finally:
        other.close()
