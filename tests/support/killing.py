"""A daemon that is killed repeatedly under load, and a check of its state after each kill.

    with ami_server() as pbx:
        account = kill_often(tmp_path, pbx, rounds=100, backend="ipset", seed=1)
    assert account.failures == []

Each round starts it with the state that the last one left, while a played Asterisk reports guesses from
many addresses and an administrator bans and unbans. Then SIGKILL comes at a random moment: during the
start, or while bans are made. The moments depend on the seed, and on the speed of the machine.

Each recorded ban must be in the kernel, with an end. A ban in the kernel without a record is adopted at the
next start and expires. The caller must be in its own network namespace.
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
from tests.support.recorded import active

from ringfence import control
from ringfence.errors import RingfenceError
from ringfence.firewall import make_backend
from ringfence.store.database import Store

THRESHOLD = 3
AT_ONCE = 5  # addresses in one burst
PAUSE = 0.02  # seconds between two bursts: 250 bans a second
STARTING = 0.25  # the share of rounds that kill the daemon while it starts
AGAIN = 0.5  # the share of networks that are banned again after their unban
LONGEST_START = 1.5
LONGEST_LOAD = 0.5
_SEVERAL = 4  # bans before a kill in every second round
LEFT = 5.0
"""A ban with less time left than this can expire during the check (seconds)."""

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
    """The results: ``failures`` has one line for each wrong state."""

    rounds: int = 0
    killed_starting: int = 0
    recorded: int = 0  # active bans at the end
    elements: int = 0
    lost: int = 0  # acknowledged bans that are missing, over all rounds
    unrecorded: int = 0  # elements without a record, over all rounds
    failures: list[str] = field(factory=list)


def kill_often(
    folder: Path, pbx: ServedAmi, *, rounds: int, backend: str, seed: int, unbanning: bool = True
) -> Account:
    """Start and kill the daemon ``rounds`` times; leave no rule and no ban. ``unbanning``: unban too."""
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    account = Account()
    guard = Guard(
        folder,
        ami={"port": pbx.port},
        firewall={"backend": backend},
        rules={"guess": {"attempts": THRESHOLD}},
        may_fail=True,
    )
    banned: set[IPv4Network] = set()
    hand = random.Random(seed + 1)  # noqa: S311 - as above
    with _guesses(pbx), _administrator(guard, hand, banned, unbanning=unbanning):
        for number in range(1, rounds + 1):
            guard.start(ready=False)
            if chance.random() < STARTING:
                time.sleep(chance.random() * LONGEST_START)
                account.killed_starting += not guard.has_notified("READY=1")
            else:
                more = _recorded(guard) + _SEVERAL * (number % 2 == 0)  # slow machines make few
                until(partial(_is_at_work, guard, more), "a ban")
                time.sleep(chance.random() * LONGEST_LOAD)
            if not guard.running:
                account.failures.append(
                    f"round {number}: the daemon ended without a kill: {guard.log[-2000:]}"
                )
                break
            guard.kill()
            account.rounds = number
            account.failures += [
                f"round {number}: {failure}" for failure in _look(guard, backend, account, banned)
            ]
    guard.__exit__()
    with closing(make_backend(backend)) as kernel:
        kernel.flush()
    return account


def _look(guard: Guard, backend: str, account: Account, banned: set[IPv4Network]) -> Iterator[str]:
    """Compare the store with the kernel while no process changes either."""
    path = Path(guard.settings["store"]["path"])
    if not path.exists():  # the daemon was killed before it created the store
        return
    with closing(sqlite3.connect(path)) as connection:
        [(found,)] = connection.execute("PRAGMA integrity_check").fetchall()
    if found != "ok":
        yield f"the store is damaged: {found}"
        return
    now = time.time()
    with Store.open(path, owner=True) as store:
        recorded = {ban.network: ban.expires for ban in active(store, now + LEFT)}
    with closing(make_backend(backend)) as kernel:
        elements = {element.network: element.timeout for element in kernel.list()}
    for network in recorded.keys() - elements.keys():
        yield f"{network} has a recorded ban for {recorded[network] - now:.1f} s, which is not in the kernel"
    lost = banned.copy() - elements.keys()
    account.lost += len(lost)
    for network in lost:
        yield f"the ban of {network} was acknowledged, and is not in the kernel"
    for network, left in elements.items():
        if isinf(left) or left <= 0:
            yield f"{network} is in the kernel without an end"
    account.recorded, account.elements = len(recorded), len(elements)
    account.unrecorded += len(elements.keys() - recorded.keys())


def _is_at_work(guard: Guard, before: int) -> bool:
    """Whether the daemon has made a ban since it was started, or has ended."""
    return not guard.running or (guard.has_notified("READY=1") and _recorded(guard) > before)


def _recorded(guard: Guard) -> int:
    """Return the number of bans ever recorded, while the daemon writes to the store."""
    path = Path(guard.settings["store"]["path"])
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            [(count,)] = connection.execute("SELECT count(*) FROM bans").fetchall()
    except sqlite3.OperationalError:  # the store does not exist yet
        return 0
    return int(count)


def guess(session: str, address: str) -> str:
    """Return Asterisk's event about a guess at the present time."""
    moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"
    return _EVENT.format(time=moment, session=session, address=address)


@contextmanager
def _guesses(pbx: ServedAmi) -> Iterator[None]:
    """Send events about guesses while the block runs; each address makes enough guesses for a ban."""

    def work(stop: threading.Event) -> None:
        number = 0
        while not stop.wait(PAUSE):
            addresses = [_FIRST + number + n for n in range(AT_ONCE)]
            events = "".join(
                guess(f"{number:x}-{index}-{address}", str(address))
                for address in addresses
                for index in range(THRESHOLD)
            )
            with suppress(ConnectionError):  # the daemon was killed
                pbx.send(events.encode())
            number += AT_ONCE

    with _in_thread("guesses", work):
        yield


@contextmanager
def _administrator(
    guard: Guard, chance: random.Random, banned: set[IPv4Network], *, unbanning: bool
) -> Iterator[None]:
    """Ban and unban networks by command while the block runs; ban some of them again immediately.

    ``banned`` are the networks whose ban the daemon has acknowledged and that were not unbanned since.
    """
    path = Path(guard.settings["control"]["socket"])

    def ban(network: IPv4Network) -> None:
        # Each ban has another length, so that a later ban of a network does not end when an earlier one did.
        seconds = 3_600.0 + chance.randrange(10, 3_600)
        control.ask(path, "ban", networks=[str(network)], seconds=seconds, reason="a test")
        banned.add(network)

    def work(stop: threading.Event) -> None:
        while not stop.wait(PAUSE):
            with suppress(RingfenceError):  # the daemon is down, or was killed while it answered
                ban(IPv4Network(f"203.{chance.randrange(256)}.{chance.randrange(256)}.0/24"))
                if unbanning and len(banned) > AT_ONCE:
                    unbanned = chance.choice(sorted(banned))
                    banned.discard(unbanned)
                    control.ask(path, "unban", networks=[str(unbanned)])
                    if chance.random() < AGAIN:
                        ban(unbanned)

    with _in_thread("administrator", work):
        yield


@contextmanager
def _in_thread(name: str, work: Callable[[threading.Event], None]) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,), name=name)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
