"""A daemon that is killed again and again under load, and what is to be found after each time.

    with ami_server() as pbx:
        account = kill_often(tmp_path, pbx, rounds=100, backend="ipset", seed=1)
    assert account.troubles == []

In each round it is started over what the last one left behind, while Asterisk (played) tells of guesses from
many addresses and an administrator bans and lifts bans; then SIGKILL comes at a random moment: while it
starts, or while bans are placed. The moments follow from the seed, but for what the machine adds.

What is recorded is to be in the kernel, with an end; what is in the kernel without a record is adopted at the
next start, and ends by itself. The caller is in a network namespace of its own.
"""

import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from math import isinf
from pathlib import Path

from attrs import define, field
from tests.support.daemon import Guard, ServedAmi, until

from ringfence import control
from ringfence.errors import RingfenceError
from ringfence.firewall import make_backend
from ringfence.store import Store

THRESHOLD = 3
AT_ONCE = 5  # addresses in one burst
PAUSE = 0.02  # seconds between two: 250 bans a second
STARTING = 0.25  # the share of rounds that are ended while the daemon starts
LONGEST_START = 1.5
LONGEST_LOAD = 0.5
LEFT = 5.0
"""A ban with less time left than this may end while one looks (seconds)."""

_FIRST = IPv4Address("198.18.0.1")
_EVENT = (
    "Event: ChallengeResponseFailed\r\nPrivilege: security,all\r\nEventTV: {time}\r\nSeverity: Error\r\n"
    "Service: PJSIP\r\nEventVersion: 1\r\nAccountID: alice\r\nSessionID: {session}\r\n"
    "LocalAddress: IPV4/TCP/192.0.2.1/5060\r\nRemoteAddress: IPV4/TCP/{address}/5061\r\n"
    "Challenge: {session}/a045dd3f00d2fdc7bf4bebb3c98ec57e\r\nResponse: 7d23cb639b2c26cccbfdea1b2a0d2966\r\n"
    "ExpectedResponse: \r\n\r\n"
)


@define
class Account:
    """What came of it: ``troubles`` is what must not be, a line each."""

    rounds: int = 0
    killed_starting: int = 0
    recorded: int = 0  # bans that run, at the end
    elements: int = 0
    unrecorded: int = 0  # elements of which there was no record, over all rounds
    troubles: list[str] = field(factory=list)


def kill_often(
    folder: Path, pbx: ServedAmi, *, rounds: int, backend: str, seed: int, lifting: bool = True
) -> Account:
    """Start and kill so many times; leaves no rule and no ban. ``lifting``: bans are lifted too."""
    chance = random.Random(seed)  # noqa: S311 - the same each time, and nobody's secret
    account = Account()
    guard = Guard(
        folder,
        ami={"port": pbx.port},
        firewall={"backend": backend},
        rules={"guess": {"attempts": THRESHOLD}},
    )
    with _guesses(pbx), _administrator(guard, random.Random(seed + 1), lifting=lifting):  # noqa: S311 - as above
        for number in range(1, rounds + 1):
            guard.start(ready=False)
            if chance.random() < STARTING:
                time.sleep(chance.random() * LONGEST_START)
                account.killed_starting += not guard.has_said("READY=1")
            else:
                until(partial(_is_at_work, guard, _recorded(guard)), "a ban")
                time.sleep(chance.random() * LONGEST_LOAD)
            if not guard.running:
                account.troubles.append(f"round {number}: the daemon ended by itself: {guard.log[-2000:]}")
                break
            guard.kill()
            account.rounds = number
            account.troubles += [f"round {number}: {trouble}" for trouble in _look(guard, backend, account)]
    guard.__exit__()
    with closing(make_backend(backend)) as kernel:
        kernel.flush()
    return account


def _look(guard: Guard, backend: str, account: Account) -> Iterator[str]:
    """Compare the store with the kernel, now that nobody changes either."""
    path = Path(guard.settings["store"]["path"])
    if not path.exists():  # killed before it made one
        return
    with closing(sqlite3.connect(path)) as connection:
        [(found,)] = connection.execute("PRAGMA integrity_check").fetchall()
    if found != "ok":
        yield f"the store is damaged: {found}"
        return
    now = time.time()
    with Store.open(path, owner=True) as store:
        recorded = {ban.network: ban.expires for ban in store.running(now + LEFT)}
    with closing(make_backend(backend)) as kernel:
        elements = {element.network: element.timeout for element in kernel.list()}
    for network in recorded.keys() - elements.keys():
        yield f"{network} is recorded as banned for {recorded[network] - now:.1f} s, and not in the kernel"
    for network, left in elements.items():
        if isinf(left) or left <= 0:
            yield f"{network} is in the kernel without an end"
    account.recorded, account.elements = len(recorded), len(elements)
    account.unrecorded += len(elements.keys() - recorded.keys())


def _is_at_work(guard: Guard, before: int) -> bool:
    """Say whether it has placed a ban since it was started, or will not."""
    return not guard.running or (guard.has_said("READY=1") and _recorded(guard) > before)


def _recorded(guard: Guard) -> int:
    """Count the bans that were ever recorded, while somebody else writes."""
    path = Path(guard.settings["store"]["path"])
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            [(count,)] = connection.execute("SELECT count(*) FROM bans").fetchall()
    except sqlite3.OperationalError:  # not made yet
        return 0
    return int(count)


def guess(session: str, address: str) -> str:
    """Give what Asterisk tells of a guess that is made now."""
    moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"
    return _EVENT.format(time=moment, session=session, address=address)


@contextmanager
def _guesses(pbx: ServedAmi) -> Iterator[None]:
    """Have Asterisk tell of guesses while the block runs: each address makes enough for a ban."""

    def go_on(over: threading.Event) -> None:
        number = 0
        while not over.wait(PAUSE):
            addresses = [_FIRST + number + n for n in range(AT_ONCE)]
            said = "".join(
                guess(f"{number:x}-{place}-{address}", str(address))
                for address in addresses
                for place in range(THRESHOLD)
            )
            with suppress(ConnectionError):  # whoever listened was killed
                pbx.say(said.encode())
            number += AT_ONCE

    with _going_on("guesses", go_on):
        yield


@contextmanager
def _administrator(guard: Guard, chance: random.Random, *, lifting: bool) -> Iterator[None]:
    """Have somebody ban networks and lift bans by hand while the block runs, whether or not he is heard."""
    path = Path(guard.settings["control"]["socket"])
    banned: list[IPv4Network] = []

    def go_on(over: threading.Event) -> None:
        while not over.wait(PAUSE):
            network = IPv4Network(f"203.{chance.randrange(256)}.{chance.randrange(256)}.0/24")
            try:
                control.ask(path, "ban", networks=[str(network)], seconds=3_600.0, reason="a test")
                banned.append(network)
                if lifting and len(banned) > AT_ONCE:
                    lifted = banned.pop(chance.randrange(len(banned)))
                    control.ask(path, "unban", networks=[str(lifted)])
            except RingfenceError:  # it is down, or was killed while it answered
                continue

    with _going_on("administrator", go_on):
        yield


@contextmanager
def _going_on(name: str, go_on: Callable[[threading.Event], None]) -> Iterator[None]:
    over = threading.Event()
    thread = threading.Thread(target=go_on, args=(over,), name=name)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
