"""Faults of the disk, of the log and of the clock: they break nothing that was acknowledged."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_network
from itertools import product
from pathlib import Path

from tests.bench.figures import Figure
from tests.support.captures import capture
from tests.support.daemon import Guard, ami_server, until
from tests.support.faults import CHANGES, LOGS, change_under_fault, opened_under_fault, wait_for
from tests.support.netns import netns, run
from tests.support.recorded import active
from tests.support.world import SUBJECT, a_world

from ringfence.store.database import Store

_WRITES = ("1", "2", "3", "1+", "2+")
_READS = 12
_UNDONE_AFTER = 35.0
"""Seconds that `off` is watched after the disk has room: the daemon retries to enforce every 30 s."""
_GUESSES = capture("asterisk-22", "wrong-password-register").ami.read_bytes().replace(b"/UDP/", b"/TCP/")
_GUESSER = "198.18.1.101"


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    yield _changes("memory", _WRITES)
    yield _changes("nftables", _WRITES[:2])
    yield _logs()
    yield _off()
    yield _clocks()
    yield _reads()


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ringfence-disks-") as name:
        yield Path(name)


def _zero(what: str, bad: list[str], tried: int) -> Figure:
    named = f": {'; '.join(bad[:3])}" if bad else ""
    return Figure(
        what=what, measured=f"{len(bad)} of {tried}{named}", must="0", reached=not bad and tried > 0
    )


def _changes(backend: str, writes: tuple[str, ...]) -> Figure:
    bad, tried = [], 0
    for change, when in product(CHANGES, writes):
        with _folder() as folder, netns():
            wrong = change_under_fault(folder, change, when, backend)
        tried += 1
        bad += [f"{change}, write {when}: {wrong}"] if wrong else []
    what = f"ENOSPC at the n-th write of ban, unban, unban --all: lost without a word, or for ever, {backend}"
    return _zero(what, bad, tried)


def _logs() -> Figure:
    bad = []
    for way in LOGS:
        with _folder() as folder:
            wrong = _guards_without_log(folder, way)
        bad += [f"{way}: {wrong}"] if wrong else []
    return _zero("a log that cannot be written: the daemon ends, or a ban is not recorded", bad, len(LOGS))


def _guards_without_log(folder: Path, way: str) -> str:
    """Make a rule ban while the log cannot be written; return what is wrong, or ""."""
    with ami_server() as pbx, LOGS[way]() as log:
        rules = {"guess": {"attempts": 3, "ban": ["1h"]}}
        guard = Guard(folder, ami={"port": pbx.port}, may_fail=True, rules=rules)
        guard.start(log=log)
        try:
            until(lambda: guard.source_is("listening"), "the source listens")
            until(lambda: pbx.server._listeners, "the PBX is listened to")
            pbx.send(_GUESSES)
            if not wait_for(10.0, lambda: not guard.running or guard.banned() == {_GUESSER}):
                return "it did not ban"
            if not guard.running:
                return "it ended"
            recorded = wait_for(10.0, lambda: _recorded(folder) == {f"{_GUESSER}/32"})  # a thread writes it
        finally:
            guard.__exit__()
    return "" if recorded else "not recorded"


def _recorded(folder: Path) -> set[str]:
    with Store.open(folder / "ringfence.db", owner=False) as store:
        return {str(ban.network) for ban in active(store, time.time())}


def _off() -> Figure:
    bad = []
    with _folder() as folder, ExitStack() as end:
        disk = folder / "disk"
        disk.mkdir()
        run("mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs", str(disk))
        end.callback(run, "umount", "--lazy", str(disk))
        end.enter_context(netns())
        guard = end.enter_context(
            Guard(folder, firewall={"backend": "nftables"}, store={"path": str(disk / "ringfence.db")})
        )
        guard.must("ban", "198.18.0.9")
        filler = disk / "filler"
        try:
            with filler.open("wb", buffering=0) as file:
                while file.write(bytes(1024)):
                    pass
        except OSError:
            pass
        bad += [] if guard.command("off").returncode == 4 else ["not reported"]
        guard.kill()
        guard.start()
        bad += ["undone by a restart"] if guard.status()["firewall"]["enforcing"] else []
        filler.unlink()
        undone = wait_for(_UNDONE_AFTER, lambda: guard.status()["firewall"]["enforcing"])
        bad += ["undone when the disk had room"] if undone else []
    return _zero("`off` on a full disk: not reported, or undone by the daemon", bad, 3)


def _clocks() -> Figure:
    bad, tried = [], 0
    for ahead, sees_end, reboot in product((60.0, 3_600.0, 86_400.0), (True, False), (True, False)):
        if reboot and not sees_end:
            continue  # without a witness, a ban whose begin lies ahead may be in force
        with _folder() as folder, a_world(folder / "ringfence.db") as world:
            world.ahead = ahead
            world.wait(1.0)
            world.enforcer.ban([SUBJECT], 6.0, "")
            world.enforcer.ban([ip_network("198.18.0.1")], 3_600.0, "")
            if sees_end:
                world.wait(7.0)
            else:
                world.now += 7.0
            world.ahead = 0.0
            world.restart(reboot=reboot)
            tried += 1
            bad += [f"{ahead} s, reboot {reboot}"] if str(SUBJECT) in world.in_kernel() else []
    return _zero("a ban that ended while the clock was ahead: returns after the correction", bad, tried)


def _reads() -> Figure:
    bad = []
    for when in range(1, _READS + 1):
        with _folder() as folder:
            with Guard(folder) as guard:
                guard.must("ban", "198.18.0.9")
            found = opened_under_fault(folder / "ringfence.db", "pread64", "EIO", str(when))
            aside = list(folder.glob("*.damaged*"))
            bad += [f"read {when}"] if aside or found != 1 else []
    return _zero("EIO at the n-th read of the database at the start: a healthy file set aside", bad, _READS)
