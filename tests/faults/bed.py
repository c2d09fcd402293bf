"""A daemon with bans, an allowed network, a feed and a log, which begins each case in the same state."""

import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from ipaddress import ip_network
from pathlib import Path

from attrs import frozen
from tests.support.asterisk import SECRET
from tests.support.captures import capture
from tests.support.daemon import Guard, ServedAmi, Traced, until
from tests.support.faults import wait_for

from ringfence.firewall import make_backend
from ringfence.firewall.cleanup import flush_everything
from ringfence.values.network import format_network

BANNED = tuple(f"198.18.1.{n}" for n in range(1, 6))
DENIED = "203.0.113.0/24"
"""The network that the feed lists."""
OFF = "off"
ENFORCE = "enforce"
LONG = 30 * 86_400.0
QUIET = 10.0
"""Seconds until the daemon must have repaired what differs."""
_WRITTEN = capture("asterisk-22", "wrong-password-register").security_log.read_bytes()
_LINES = b"".join(line + b"\n" for line in _WRITTEN.split(b"\n") if b'"ChallengeSent"' in line)
"""Lines that are no attempts: with a slow start, when AMI reports nothing yet, attempts would be a ban."""
_STATES = ("store.", "firewall.", "source.", "task.", "host.")
"""How the codes of alarms begin that clear when their cause is gone."""
_BROKEN = frozenset({"store.in_memory", "store.damaged"})
"""Alarms about a database that records nothing until a restart."""
_FOR_PEOPLE = _BROKEN | {"store.invalid_bans", "firewall.leftovers", "firewall.limits", "firewall.off"}
"""Alarms that end by what a person does, or by a restart. ``Facts.switched`` has the last one."""
_TRACES = re.compile(r"Traceback|\.defect |exception=")
"""What the log has of an exception that nothing expected."""
_TOLD = re.compile(r" event=alarm\.([a-z_]+\.[a-z_]+) ")
_LOOPS = re.compile(r"(?m)^Exception ignored in: <function BaseEventLoop.__del__.*\nTraceback.*$")
"""What Python prints about an event loop of a library that the kernel refused."""


@frozen
class Facts:
    """What an administrator has commanded, as the daemon shows it."""

    bans: frozenset[str] = frozenset()
    allowed: frozenset[str] = frozenset()
    feeds: frozenset[str] = frozenset()
    rules: frozenset[str] = frozenset()
    """The rules that are off."""
    admitted: frozenset[str] = frozenset()
    """The networks that the fence admits for a time."""
    denied: frozenset[str] = frozenset()
    switched: frozenset[str] = frozenset()
    """The word OFF if nothing is enforced."""
    fenced: frozenset[str] = frozenset()
    """The word ENFORCE if the fence drops packets."""


def listed(values: Iterable[str]) -> str:
    """Return values as text."""
    return " ".join(sorted(values)) or "-"


def vars_of(facts: Facts) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield the names and values of facts."""
    for name in ("bans", "allowed", "feeds", "rules", "admitted", "denied", "switched", "fenced"):
        yield name, getattr(facts, name)


class Bed:
    """One daemon in ``folder``. The caller is in a network namespace of its own, and plays the PBX."""

    def __init__(self, folder: Path, backend: str, pbx: ServedAmi) -> None:
        self.folder = folder
        self.backend = backend
        self.pbx = pbx
        self.output = folder / "strace"
        self.list = folder / "list.txt"
        self._work, self._saved = folder / "work", folder / "saved"
        self._work.mkdir()
        self.log = self._work / "asterisk.log"
        entry = {
            "name": "pbx",
            "ami": {"port": pbx.port, "secret": SECRET},
            "logs": {"paths": [str(self.log)]},
            "wire": {"enabled": False},
        }
        self.traced: Traced | None = None
        self._beginnings: dict[bool, Facts] = {}
        self._usual: dict[bool, frozenset[str]] = {}
        self.guard = Guard(
            self._work,
            asterisk=[entry],
            firewall={"backend": backend},
            rules={"probe": {"enabled": True}},
            fence={"mode": ENFORCE},  # until an operation starts it, it only observes
            may_fail=True,
        )

    def prepare(self) -> None:
        """Make the state in which each case begins, and keep its files."""
        self.log.touch()
        self.list.write_text(f"{DENIED}\n")
        flush_everything()
        with self.guard as guard:
            guard.ask("ban", networks=list(BANNED), seconds=LONG)
            guard.ask("allow_add", what=["192.0.2.0/24"])
        shutil.copytree(self._work, self._saved)

    def beginning(self, *, empty: bool) -> Facts:
        """Return the facts with which a case begins."""
        if empty not in self._beginnings:
            self.reset(empty=empty)
            self.guard.start()
            until(self.is_quiet, "a quiet daemon")
            self._beginnings[empty] = self.facts()
            self._usual[empty] = self.alarms
            self.end()
        return self._beginnings[empty]

    def alarms_beyond(self, *, empty: bool) -> frozenset[str]:
        """Return the active alarms about the host and the daemon that a daemon without a fault has not."""
        return frozenset(one for one in self.alarms - self._usual[empty] if one.startswith(_STATES))

    def staying(self, *, empty: bool) -> frozenset[str]:
        """Return those of :meth:`alarms_beyond` that should clear by themselves."""
        found = self.alarms_beyond(empty=empty)
        unrecorded = {"store.not_recorded"} if found & _BROKEN else set[str]()
        return found - _FOR_PEOPLE - unrecorded

    @contextmanager
    def tracing(self, traced: Traced) -> Iterator[None]:
        """Let the command of an operation run in the context ``traced``."""
        self.traced = traced
        try:
            yield
        finally:
            self.traced = None

    def reset(self, *, empty: bool = False, earlier: bool = False) -> None:
        """End the daemon, and make the state of the beginning again, as after a reboot.

        ``empty``: as before the first start of all. ``earlier``: the database is of an earlier ringfence.
        """
        self.end()
        self.end_trials()
        flush_everything()
        for path in {*self._work.iterdir()} - {self._work / "notify.sock"}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not empty:
            shutil.copytree(self._saved, self._work, dirs_exist_ok=True)
        (self._work / "daemon.log").unlink(missing_ok=True)  # of the preparation
        if earlier:
            self._forget_features()
        self.log.touch()
        self.guard.configure()
        self.output.unlink(missing_ok=True)

    def _forget_features(self) -> None:
        """Make the database that of an earlier ringfence, which lacked a table, a column, and all indexes."""
        with closing(sqlite3.connect(self._work / "ringfence.db")) as database, database:
            indexes = database.execute("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql NOTNULL")
            for (name,) in indexes.fetchall():
                database.execute(f"DROP INDEX {name}")
            database.execute("DROP TABLE phones")
            database.execute("ALTER TABLE bans DROP COLUMN shared")

    def unlike(self) -> str:
        """Return how the database's tables differ from those of the beginning; "" if they do not."""
        made, wanted = (_shape_of(folder / "ringfence.db") for folder in (self._work, self._saved))
        return f"tables: {listed(map(str, made ^ wanted))}" if made != wanted else ""

    def end(self) -> None:
        """Kill the daemon if it runs."""
        if self.guard.running:
            self.guard.process.send_signal(signal.SIGCONT)
            self.guard.kill()

    def end_trials(self) -> None:
        """Kill the processes that wait for the end of a trial: they would open a later case's database."""
        waiting = f"ringfence.guard.trial_end .* {self.guard.config} "
        subprocess.run(["pkill", "-f", waiting], check=False)

    def facts(self) -> Facts:
        """Return what the daemon shows."""
        guard = self.guard
        status, fence = guard.status(), guard.ask("fence")
        return Facts(
            frozenset(guard.banned()),
            frozenset(row["entry"] for row in guard.ask("lists", side="allow")),
            frozenset(row["name"] for row in guard.ask("feeds")),
            frozenset(status["rules"]["off"]),
            frozenset(row["what"] for row in fence["admitted"]),
            frozenset(row["entry"] for row in guard.ask("lists", side="deny")),
            frozenset() if status["firewall"]["enforcing"] else frozenset({OFF}),
            frozenset({fence["mode"]} & {ENFORCE}),
        )

    def disagreement(self) -> str:
        """Return how the daemon's list, its ledger, the kernel and the database differ; "" if they agree."""
        shown, status = self.guard.banned(), self.guard.status()
        if not status["firewall"]["enforcing"]:
            kernel = self.kernel()
            return f"kernel: {listed(kernel)}, although nothing is enforced" if kernel else ""
        different = [
            f"{name}: {listed(other)} instead of {listed(shown)}"
            for name, other in (("kernel", self.kernel()), ("database", self.recorded()))
            if other != shown
        ]
        if status["expected"] != len(shown):
            different.append(f"ledger {status['expected']} instead of {len(shown)}")
        return "; ".join(different)

    def kernel(self) -> set[str]:
        """Return the banned networks in the kernel."""
        if self.backend == "memory":
            return self.guard.banned()
        with closing(make_backend(self.backend)) as kernel:
            return {format_network(element.network) for element in kernel.list()}

    def recorded(self) -> set[str]:
        """Return the networks with an active ban in the database's file."""
        path = self._work / "ringfence.db"
        if not path.exists():
            return set()
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            try:
                rows = connection.execute(
                    "SELECT network FROM bans WHERE ended IS NULL AND expires > ?", (time.time(),)
                ).fetchall()
            except sqlite3.OperationalError:  # its first write failed, and the daemon's database is in memory
                return set()
        return {format_network(ip_network(text)) for (text,) in rows}

    def is_quiet(self) -> bool:
        """Whether the daemon has begun all its work."""
        return "event=friends.known" in self.guard.log and self.guard.source_is("listening")

    def hears(self, seconds: float = QUIET) -> bool:
        """Whether the daemon reads a line that Asterisk writes to its log now, and is logged in at AMI."""
        before = self._heard()
        with self.log.open("ab") as file:
            file.write(_LINES)
        return wait_for(seconds, lambda: self._heard() > before and self.guard.ami_is("listening"))

    def _heard(self) -> int:
        logs = [one for one in self.guard.status()["sources"] if "/log:" in one["name"]]
        return sum(one["events"] + one["skipped"] for one in logs)

    @property
    def alarms(self) -> frozenset[str]:
        """The codes of the active alarms."""
        return frozenset(alarm["code"] for alarm in self.guard.status()["alarms"])

    @property
    def alarms_told(self) -> frozenset[str]:
        """The codes of the alarms that the log has: those that were active at any time."""
        return frozenset(_TOLD.findall(self.guard.log))

    @property
    def defects(self) -> list[str]:
        """The lines of the daemon's log that show an exception nobody expected."""
        lines = _LOOPS.sub("", self.guard.log).split("\n")
        return [line for line in lines if _TRACES.search(line)]


def _shape_of(path: Path) -> set[tuple[str, str]]:
    """Return the tables and indexes of a database, with the names of their columns."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return {
            (name, *columns)
            for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE sql NOTNULL").fetchall()
            for columns in database.execute(
                "SELECT name FROM pragma_table_info(?) UNION ALL SELECT name FROM pragma_index_info(?)",
                (name, name),
            ).fetchall()
        }


@contextmanager
def bed(folder: Path, backend: str, pbx: ServedAmi) -> Iterator[Bed]:
    """Yield a prepared daemon that does not run, and leave no rule and no process."""
    made = Bed(folder, backend, pbx)
    try:
        made.prepare()
        yield made
    finally:
        made.end()
        made.end_trials()
        made.guard.__exit__()
        flush_everything()
