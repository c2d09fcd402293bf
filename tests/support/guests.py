"""Attacks of other users of this host on the control socket, and what root and the daemon notice of them.

A guest is a user whom the group of the daemon lets reach the socket. Each attack runs in children with the
user ids of guests. They open as many connections as they can, and repeat their requests on each of them.
"""

import json
import mmap
import os
import selectors
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from http.client import HTTPException
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from tests.support.daemon import Guard
from tests.support.web import Browser

from ringfence import control, control_server
from ringfence.control import MAX_REQUEST
from ringfence.control_server import MOST_OF_USER
from ringfence.errors import ControlError

CLIENT_HEADER = "X-Real-IP"
"""The header in which the proxy in front of the page names its client."""
_OTHER_LISTS = ("alarms", "latest", "top", "history", "past_bans")


@frozen
class Attack:
    """The ``lines`` that a guest repeats on each connection. ``reads``: it reads the answers."""

    name: str
    lines: bytes
    reads: bool = True


def _filled(part: bytes, size: int, start: bytes = b"[", end: bytes = b"]") -> bytes:
    """Return a line of some ``size`` bytes that repeats ``part``."""
    return start + part * (size // len(part)) + end + b"\n"


def _request(do: str, **fields: object) -> bytes:
    return json.dumps({"do": do, **fields}).encode() + b"\n"


_SMALL = control_server.MAX_REQUEST_OF_OTHERS - 100
_ALL_LENGTHS = [*(f"0.0.0.0/{n}" for n in range(33)), *(f"::/{n}" for n in range(0, 124, 4))]

UNKNOWN = [
    Attack("nested lists of 1 MiB", _filled(b"[],", MAX_REQUEST - 100, end=b"[]]")),
    Attack("nested lists of the greatest length", _filled(b"[],", _SMALL, end=b"[]]")),
    Attack("deep lists", _filled(b"[", _SMALL)),
    Attack("long numbers", _filled(b"9" * 4_300 + b",", _SMALL, end=b"1]")),
    Attack("many keys", _filled(b'"k":[],', _SMALL, b"{", b'"do":"x"}')),
    Attack("four-byte characters", _filled("😀".encode(), _SMALL, b'{"do":"', b'"}')),
    Attack("unknown requests", b"{}\n" * 1_000),
    Attack("halves of requests", b"[" * _SMALL),
]
"""Requests that the daemon does not know."""
READERS = [
    Attack("all bans", _request("bans", most=262_144)),
    Attack("all bans, unread", _request("bans", most=262_144) * 4, reads=False),
    Attack("most bans", _request("bans", most=261_999)),
    Attack("bans of networks", _request("bans", most=262_144, networks=_ALL_LENGTHS[:64])),
    Attack("ended bans", _request("past_bans", networks=_ALL_LENGTHS[:64])),
    Attack("facts about everything", _request("why", network="0.0.0.0/0")),
    Attack("facts about one", _request("why", network="100.64.0.1")),
    Attack("status", _request("status") * 100),
    Attack("status, unread", _request("status") * 1_000, reads=False),
    Attack("other lists", b"".join(_request(do) for do in ("friends", "alarms", "latest", "top", "fleet"))),
    Attack("histories", _request("history") + _request("tops", kind="accounts")),
]
PAGE_ONLY = [
    Attack("20,000 bans", _request("bans", most=20_000)),
    Attack("20,000 bans, unread", _request("bans", most=20_000) * 4, reads=False),
    Attack("facts about everything", _request("why", network="0.0.0.0/0")),
    Attack("status", _request("status") * 100),
    Attack("other lists", b"".join(_request(do) for do in _OTHER_LISTS)),
    Attack("links", _request("fence_redeem", token="x" * 43, address="198.51.100.1") * 100),
]


Ended = Callable[[], bool]
"""Whether an attack must end."""


def attack(path: Path, one: Attack, user: int, ended: Ended) -> int:
    """Become ``user``, and repeat an attack on as many connections as one user may open.

    Return how many of its parts the daemon took.
    """
    taken = 0
    os.setgroups([])
    os.setgid(0)  # in the tests, the daemon and its socket have the group 0
    os.setuid(user)
    with selectors.DefaultSelector() as ready:
        while not ended():
            while len(ready.get_map()) < MOST_OF_USER:
                client = socket.socket(socket.AF_UNIX)
                client.settimeout(2)
                with suppress(OSError):
                    client.connect(str(path))
                client.settimeout(0)
                events = selectors.EVENT_WRITE | (selectors.EVENT_READ if one.reads else 0)
                ready.register(client, events, memoryview(one.lines))
            for key, events in ready.select(0.1):
                taken += _serve(ready, key, events, one)
            time.sleep(0.001)
    return taken


def _serve(ready: selectors.BaseSelector, key: selectors.SelectorKey, events: int, one: Attack) -> bool:
    """Read and write on a connection; return whether the daemon took bytes of the attack."""
    client: Any = key.fileobj
    rest = key.data
    try:
        if events & selectors.EVENT_READ and not client.recv(1 << 20):
            raise ConnectionError
        if events & selectors.EVENT_WRITE:
            rest = rest[client.send(rest) :]
            if not rest:
                rest = memoryview(one.lines)
            ready.modify(client, key.events, rest)
            return True
    except BlockingIOError:
        return False
    except OSError:
        ready.unregister(client)
        client.close()
    return False


def attacked(path: Path, one: Attack, users: Sequence[int]) -> AbstractContextManager[None]:
    """Run an attack on the control socket by each of ``users`` while the block runs."""
    return _children([partial(attack, path, one, user) for user in users])


def links_tried(page: Path) -> AbstractContextManager[None]:
    """Press the button of a link from ever new addresses, each in a /64 of its own, while the block runs."""
    return _children([partial(_try_links, page, number) for number in range(2)])


def _try_links(page: Path, number: int, ended: Ended) -> int:
    """Press the button until the end; return how often the page answered."""
    browser, address, answered = Browser(page), (0x2001_0DB8 + number) << 96, 0
    while not ended():
        address += 1 << 64
        with suppress(OSError, HTTPException):
            browser.post("/admit", {"token": "y" * 43}, **{CLIENT_HEADER: str(ip_address(address))})
            answered += 1
    return answered


@contextmanager
def _children(actions: Sequence[Callable[[Ended], int]]) -> Iterator[None]:
    """Run each action in a child while the block runs. One that fails or has no effect is an error."""
    shared = mmap.mmap(-1, 1)
    children = [_child(action, shared) for action in actions]
    try:
        yield
    finally:
        shared[0] = 1
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert not any(codes), f"an attack failed, or reached nobody: {codes}"


def _child(action: Callable[[Ended], int], shared: mmap.mmap) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        code = int(not action(lambda: bool(shared[0])))
    except BaseException:  # noqa: BLE001 - a child must not return into the test
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


@define
class Noticed:
    """Effects of an attack on root and the daemon: root's answers, and the largest memory.

    An answer is the seconds that it took, and the request.
    """

    answers: list[tuple[float, str]] = field(factory=list)
    memory: int = 0
    ended: bool = False

    @property
    def slowest(self) -> tuple[float, str]:
        """The slowest answer."""
        return max(self.answers)


def noticed(guard: Guard, attack: AbstractContextManager[None], seconds: float) -> Noticed:
    """Attack a daemon for ``seconds``; meanwhile root asks for its status, bans and unbans."""
    found, path = Noticed(), guard.folder / "control.sock"
    Path(f"/proc/{guard.pid}/clear_refs").write_text("5", "ascii")  # begin a new peak of memory
    with attack:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not found.ended:
            for do, fields in _ROOT.items():
                began = time.monotonic()
                try:
                    control.ask(path, do, **fields)
                except ControlError:
                    found.ended = not guard.running
                found.answers.append((time.monotonic() - began, do))
            time.sleep(0.05)
        found.memory = peak_memory(guard.pid)
    found.ended = found.ended or not guard.running
    return found


_ROOT: Mapping[str, dict[str, Any]] = {
    "status": {},
    "ban": {"networks": ["198.18.9.9"], "seconds": 60.0},
    "unban": {"networks": ["198.18.9.9"]},
    "alarms": {},
}


def peak_memory(pid: int) -> int:
    """Return the largest resident memory of a process since the peak was reset, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no memory")
