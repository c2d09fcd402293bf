"""A real PostgreSQL with one database, run from a tree that is never changed.

The tree is a minimal Debian with PostgreSQL in it, made by ``make bench``.
"""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from tests.support.asterisk import tree_of
from tests.support.daemon import until
from tests.support.process import family_cpu_seconds

_PROGRAMS = "/usr/lib/postgresql/15/bin"
SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
"""The databases of CrowdSec."""
_COPIES = 1_000_000
"""The id of the first copied row. CrowdSec counts its own rows from 1, so the ids never collide."""
_ENVIRON = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_LAUNCH = """\
set -eu
tree=$1 folder=$2
shift 2
mount --bind "$folder" "$tree/mnt"
mount --bind /dev "$tree/dev"
mount -t proc proc "$tree/proc"
exec chroot --userspec=postgres "$tree" "$@"
"""


def why_no_postgresql() -> str:
    """Return why PostgreSQL cannot be run here; empty if it can. It also needs root."""
    tree = tree_of("postgresql")
    return "" if tree.is_dir() else f"`make bench` makes {tree}"


class PostgreSQL:
    """A PostgreSQL server on 127.0.0.1 of the caller's network namespace.

    It accepts every client without a password, and stops when the context ends. ``folder`` is created for its
    data.
    """

    port = 5432

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "postgresql.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        (self._folder / "data").mkdir(parents=True)
        users = (tree_of("postgresql") / "etc/passwd").read_text("utf-8").split("\n")
        [owner] = (int(user.split(":")[2]) for user in users if user.startswith("postgres:"))
        shutil.chown(self._folder / "data", owner)
        self._run("initdb", "--auth=trust", "--no-sync", "--locale=C.UTF-8", "--pgdata=/mnt/data")
        with self._log.open("wb") as log:
            options = "-D", "/mnt/data", "-k", "/mnt/data", "-h", "127.0.0.1", "-p", str(self.port)
            self._process = subprocess.Popen(
                self._line("postgres", *options), stdout=log, stderr=log, env=_ENVIRON
            )
        try:
            until(self._answers, "PostgreSQL answers", 20)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # it does not wait for its clients
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._process.kill()
            self._process.wait()

    def ask(self, sql: str) -> str:
        """Run SQL, and return its rows as text without a header."""
        return self._run(*self._client, "-f", "-", given=sql)

    def copy(self, table: str, column: str, known: str, copies: Sequence[Mapping[str, str]]) -> None:
        """Add copies of the row whose ``column`` is ``known`` to a table, with other values."""
        row = json.loads(self.ask(f"SELECT row_to_json(t) FROM {table} t WHERE {column} = '{known}'"))  # noqa: S608
        rows = json.dumps([{**row, "id": _COPIES + number, **copy} for number, copy in enumerate(copies)])
        self.ask(f"INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, '{rows}')")  # noqa: S608

    @property
    def cpu_seconds(self) -> float:
        """The CPU time of all its processes (seconds)."""
        assert self._process is not None
        return family_cpu_seconds(self._process.pid)

    @property
    def _client(self) -> tuple[str, ...]:
        """The command of the client, which ends with the first error."""
        where = "-h", "127.0.0.1", "-p", str(self.port), "-d", "postgres"
        return "psql", *where, "-qAt", "-v", "ON_ERROR_STOP=1"

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"PostgreSQL ended: {self._log.read_text('utf-8', 'replace')[-2_000:]}")
        try:
            self.ask("SELECT 1")
        except RuntimeError:
            return False
        return True

    def _run(self, program: str, *words: str, given: str = "") -> str:
        """Run a program of the tree, and return its output. Raise RuntimeError if it fails."""
        line = self._line(program, *words)
        done = subprocess.run(line, capture_output=True, text=True, check=False, input=given, env=_ENVIRON)
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr[-2_000:]}")
        return done.stdout

    def _line(self, program: str, *words: str) -> list[str]:
        launch = ["unshare", "--mount", "sh", "-c", _LAUNCH, "sh"]
        return [*launch, str(tree_of("postgresql")), str(self._folder), f"{_PROGRAMS}/{program}", *words]


def databases() -> Iterator[str]:
    """Yield the databases that CrowdSec can have here."""
    yield SQLITE
    if not why_no_postgresql():
        yield POSTGRESQL


@contextmanager
def running(database: str, folder: Path) -> Iterator[PostgreSQL | None]:
    """Run a database in a new folder until the block ends; yield None for SQLite, which is a library."""
    if database == SQLITE:
        yield None
    else:
        with PostgreSQL(folder) as server:
            yield server
