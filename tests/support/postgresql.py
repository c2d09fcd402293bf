"""A real PostgreSQL with one database, run from a tree that is never changed.

The tree is a minimal Debian with PostgreSQL in it, made by ``make bench``.
"""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.support.asterisk import tree_of
from tests.support.daemon import until
from tests.support.process import family_cpu_seconds

PROGRAMS = "/usr/lib/postgresql/15/bin"
_COPIES = 1_000_000
"""The first number of a copied row; rows of CrowdSec begin with 1."""
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
    """A PostgreSQL on loopback in this network namespace, for everybody, while the context lasts.

    ``folder`` has its data.
    """

    port = 5432

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir()
        tree = tree_of("postgresql")
        users = (line.split(":") for line in (tree / "etc/passwd").read_text("utf-8").split("\n"))
        [owner] = (int(user[2]) for user in users if user[0] == "postgres")
        shutil.chown(self._folder, owner)
        self._run("initdb", "--auth=trust", "--no-sync", "--encoding=UTF8", "--pgdata=/mnt/data")
        with (self._folder / "postgresql.log").open("wb") as log:
            options = "-D", "/mnt/data", "-k", "/mnt", "-h", "127.0.0.1", "-p", str(self.port)
            line = self._line("postgres", *options)
            self._process = subprocess.Popen(line, stdout=log, stderr=log)
        until(lambda: self._asked("SELECT 1").returncode == 0, "PostgreSQL answers", 20)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def ask(self, sql: str) -> str:
        """Run SQL, and return its rows as text without a header."""
        done = self._asked(sql)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout

    def copy(self, table: str, column: str, known: str, copies: Sequence[Mapping[str, str]]) -> None:
        """Add copies of the row whose ``column`` is ``known`` to a table, with other values."""
        row = json.loads(self.ask(f"SELECT row_to_json(t) FROM {table} t WHERE {column} = '{known}'"))  # noqa: S608
        rows = json.dumps([row | {"id": _COPIES + number} | copy for number, copy in enumerate(copies)])
        self.ask(f"INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, '{rows}')")  # noqa: S608

    @property
    def cpu_seconds(self) -> float:
        """The CPU time of all its processes (seconds)."""
        assert self._process is not None
        return family_cpu_seconds(self._process.pid)

    def _asked(self, sql: str) -> "subprocess.CompletedProcess[str]":
        line = self._line("psql", "-h", "127.0.0.1", "-p", str(self.port), "-qAt", "-c", sql, "postgres")
        return subprocess.run(line, capture_output=True, text=True, check=False)

    def _run(self, *words: str) -> None:
        subprocess.run(self._line(*words), check=True, capture_output=True)

    def _line(self, program: str, *words: str) -> list[str]:
        launch = ["unshare", "--mount", "sh", "-c", _LAUNCH, "sh"]
        return [*launch, str(tree_of("postgresql")), str(self._folder), f"{PROGRAMS}/{program}", *words]
