"""Attacks on the daemon by a local API, a country database, a feed, and a container.

Each attack has a daemon of its own. While it lasts, root asks for something every few milliseconds.
"""

import json
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from attrs import define, field
from tests.bench.figures import Figure
from tests.bench.pace import slowness
from tests.features.fleet.server import KEY, MACHINE, PASSWORD, FakeApi, fake_api
from tests.support.daemon import Guard, until
from tests.support.mmdb import endless
from tests.support.netns import netns
from tests.support.process import most_resident

from ringfence.errors import ControlError, DaemonUnreachableError
from ringfence.features.feeds.formats import MAX_LIST
from ringfence.features.fleet.api import MAX_BODY
from ringfence.parse.answer_stream import AnswerStreams
from ringfence.parse.packet import SEQUENCES

HANGS, SLOW, LARGE = 2.0, 0.2, 300 << 20
"""Seconds that the event loop may stand still, seconds until root's answer at pace 1, and bytes of memory.

The loop stands still while Python reads what the API sent, or takes its lock away, so a slow machine takes
longer.
"""
LASTS = 12.0
"""Seconds of an attack that repeats itself."""
PATIENCE = 120.0
FEWEST_ANSWERS = 100
"""The fewest answers by which the pauses are judged."""
SESSIONS = 2_000
NOTHING = b'{"new":null,"deleted":null}'
"""An answer without decisions."""


@define
class Outcome:
    """The effects of an attack: the numbers of ends, pauses and slow answers, and the rest at its worst.

    ``waits`` are the seconds of each answer that took more than ``SLOW``. It is slow after ``late`` seconds.
    """

    late: float
    ends: int = 0
    hangs: int = 0
    waits: list[float] = field(factory=list)
    large: int = 0
    memory: int = 0
    answers: int = 0
    pause: float = 0.0
    ready: float = 0.0
    listed: float = 0.0

    @property
    def slow(self) -> int:
        """The number of slow answers."""
        return sum(wait > self.late for wait in self.waits)

    @property
    def failures(self) -> int:
        """The number of all that must not happen."""
        return self.ends + self.hangs + self.slow + self.large + (self.answers < FEWEST_ANSWERS)

    @property
    def text(self) -> str:
        """The outcome for people."""
        return (
            f"{self.ends}, {self.hangs}, {self.large}, {self.slow} ({self.answers} answers, "
            f"{self.memory >> 20} MB, longest pause {self.pause:.2f} s, "
            f"READY after {self.ready:.1f} s, a change of a list {self.listed:.2f} s)"
        )


def figures(_: Path | None) -> Iterator[Figure]:
    """Carry out each attack."""
    for name, attack in ATTACKS.items():
        with tempfile.TemporaryDirectory() as folder, netns():
            outcome = attack(Path(folder))
        yield Figure(
            f"{name}: ends, hangs over {HANGS:.0f} s, memory over 300 MB, "
            f"root's answers over {SLOW} s at pace 1",
            outcome.text,
            f"0, 0, 0, 0 (over {outcome.late:.2f} s here), by {FEWEST_ANSWERS} answers or more",
            outcome.failures == 0,
        )
    raised = jumps()
    what = f"{SESSIONS} connections of a container with overlapping holes: ends of the wire's session"
    yield Figure(what, str(raised), "0", raised == 0)


def attacked(folder: Path, during: Callable[[Guard], None], **settings: Any) -> Outcome:  # noqa: ANN401 - whatever TOML holds
    """Run a daemon, let ``during`` attack it, and meanwhile ask as root."""
    outcome, over = Outcome(SLOW * slowness()), threading.Event()
    # The memory backend would make an object of each network.
    guard = Guard(folder, firewall={"backend": "nftables"}, **settings)

    def ask() -> None:
        while not over.wait(0.01):
            began = time.perf_counter()
            try:
                guard.ask("nothing")
            except ControlError as error:  # an unknown request: its answer needs no work
                outcome.answers += not isinstance(error, DaemonUnreachableError)
            took = time.perf_counter() - began
            outcome.pause = max(outcome.pause, took)
            if took > SLOW:
                outcome.waits.append(took)
            outcome.hangs += took > HANGS

    began = time.monotonic()
    with guard, ThreadPoolExecutor(1) as pool:
        outcome.ready = time.monotonic() - began
        asking = pool.submit(ask)
        try:
            during(guard)
            start = time.perf_counter()
            guard.ask("deny_add", what=["203.0.113.9"])
            outcome.listed = time.perf_counter() - start
            outcome.hangs += outcome.listed > HANGS
        finally:
            over.set()
        asking.result()
        outcome.late = max(outcome.late, SLOW * slowness())  # the pace changes within minutes
        outcome.ends = int(not guard.running)
        outcome.memory = 0 if outcome.ends else most_resident(guard.pid)
    outcome.large = int(outcome.memory > LARGE)
    return outcome


# -- a local API, or anybody between


def api_attack(folder: Path, during: Callable[[Guard, FakeApi], None], first: bytes) -> Outcome:
    """Run a daemon that shares bans with an API whose first answer is ``first``."""
    (folder / "password").write_text(PASSWORD, "utf-8")
    (folder / "key").write_text(KEY, "utf-8")
    files = {"password_file": str(folder / "password"), "key_file": str(folder / "key")}
    with fake_api() as api:
        api.page = first
        table = {"url": api.url, "machine": MACHINE, **files, "interval": "1s"}
        return attacked(folder, lambda guard: during(guard, api), crowdsec=table)


def rows(numbers: range, scenario: str, origin: str, duration: str, *, first: int = 0x20000000) -> bytes:
    """Return an answer with decisions about different addresses."""
    made = (
        f'{{"id":{n},"value":"{IPv4Address(first + 3 * n)}","scope":"ip","type":"ban",'
        f'"duration":"{duration}","scenario":"{scenario.format(n)}","origin":"{origin.format(n)}"}}'
        for n in numbers
    )
    return ('{"new":[' + ",".join(made) + '],"deleted":null}').encode()[:MAX_BODY]


def answer(guard: Guard, api: FakeApi, page: bytes) -> None:
    """Answer with a page until it was certainly taken over or refused.

    Then answer without decisions: after several failures the daemon would pause for up to 30 s.
    """
    for api.page in (page, NOTHING):
        enough = pulls(api) + 2
        until(partial(asked, guard, api, enough), "two pulls", PATIENCE)


def asked(guard: Guard, api: FakeApi, times: int) -> bool:
    """Whether the decisions were requested so many times, or the daemon has ended."""
    return pulls(api) >= times or not guard.running


def pulls(api: FakeApi) -> int:
    """Return how many times the decisions were requested."""
    return sum("/decisions/stream" in one for one in api.requests)


def nested(folder: Path) -> Outcome:
    """Answer with 24 MB of small values, nested in different ways."""
    units = (b"[],", b'{"a":[[{}]]},', b'{"id":1},', b"0,")
    pages = [b'{"new":[' + unit * (MAX_BODY // len(unit) - 8) + b"0]}" for unit in units]
    pages.append(b'{"x":' + pages[0][7:-1] + b',"new":[]}')

    def during(guard: Guard, api: FakeApi) -> None:
        for page in pages:
            answer(guard, api, page)

    return api_attack(folder, during, pages[0])


def texts(folder: Path) -> Outcome:
    """Answer again and again with decisions that have long texts, one character of which has four bytes."""
    wide, each = "x" * 190 + "\U0001f600" + "{:08}", 50_000
    pages = [rows(range(n * each, (n + 1) * each), wide, wide, "9h") for n in range(5)]

    def during(guard: Guard, api: FakeApi) -> None:
        for page in pages:
            answer(guard, api, page)

    return api_attack(folder, during, pages[0])


def together(folder: Path) -> Outcome:
    """Answer with as many decisions as there is room for, all of which end in one moment."""
    page = rows(range(210_000), "s", "o", "20s")

    def during(guard: Guard, api: FakeApi) -> None:
        until(lambda: guard.ask("fleet")["decisions"] > 200_000, "the decisions", PATIENCE, 0.2)
        api.page = NOTHING
        until(lambda: guard.ask("fleet")["decisions"] == 0, "the end of all", PATIENCE, 0.2)

    return api_attack(folder, during, page)


# -- the publisher of a country database


def database(folder: Path) -> Outcome:
    """Make the daemon read a database of 131 072 records, each of which leads to very many values."""
    path = endless(folder / "x.mmdb")

    def during(guard: Guard) -> None:
        start = time.monotonic()
        until(lambda: "geo.unreadable" in json.dumps(guard.status()), "the refusal", PATIENCE, 0.2)
        began = time.monotonic()
        path.rename(path.with_name("y.mmdb")).rename(path)
        while time.monotonic() < max(start + LASTS, began):
            guard.ask("deny_add", what=["203.0.113.8"])
            time.sleep(0.5)

    return attacked(folder, during, geo={"database": [str(path)]}, deny={"countries": ["DE"]})


# -- the owner of a feed's file


def growing(folder: Path) -> Outcome:
    """Make a feed's file grow whenever it is read."""
    path, over = folder / "list.txt", threading.Event()
    path.write_bytes(b"198.51.100.1\n")
    os.utime(path, (1, 1))

    def grow() -> None:
        size = 0
        while not over.wait(0.0005):
            size = 1_000 if size > MAX_LIST else size + (8 << 20)
            os.truncate(path, size)
            os.utime(path, (1, 1))

    def during(guard: Guard) -> None:
        time.sleep(LASTS)
        over.set()  # while it grows, no reading counts
        until(lambda: guard.ask("feeds")[0]["problem"], "the refusal", PATIENCE, 0.2)

    with ThreadPoolExecutor(1) as pool:
        owner = pool.submit(grow)
        try:
            outcome = attacked(folder, during, feeds=[{"name": "long", "file": str(path)}])
        finally:
            over.set()
        owner.result()
    return outcome


def comments(folder: Path) -> Outcome:
    """Write a list that is nothing but comments."""
    path = folder / "list.txt"
    path.write_bytes(b"#\n" * (MAX_LIST // 2))
    os.utime(path, (1, 1))

    def during(guard: Guard) -> None:
        until(lambda: guard.ask("feeds")[0]["problem"], "the refusal", PATIENCE, 0.2)
        for number in range(3):
            os.utime(path, (1, 2 + number))
            time.sleep(LASTS / 3)

    return attacked(folder, during, feeds=[{"name": "long", "file": str(path)}])


# -- root in a container


def jumps() -> int:
    """Send segments of many connections at any number; return how many of them raised an error."""
    rng, raised = random.Random(0), 0  # noqa: S311 - a game
    for _ in range(SESSIONS):
        streams, at = AnswerStreams(), 0
        streams.begin(b"x", 0)
        try:
            for _ in range(30):
                at += rng.choice([15, 14, 12, 8, 4, -2, -6]) * (SEQUENCES // 32)
                streams.read(b"x", at % SEQUENCES, b"x" * 50)
        except ValueError:
            raised += 1
    return raised


ATTACKS = {
    "an API that answers with 24 MB of nested JSON": nested,
    "an API that answers with 250 000 decisions of long texts": texts,
    "an API whose 210 000 decisions end together": together,
    "a hostile country database": database,
    "a feed whose file grows while it is read": growing,
    "a feed of 64 MB of comment lines": comments,
}
