"""A real CrowdSec, run from its unpacked package, with all its files in the folder of a test.

Only its local API runs. It talks to no server outside: it has no account at CrowdSec's central API.
"""

import hashlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from tests.support.asterisk import DEFAULT_LAB
from tests.support.daemon import until
from tests.support.postgresql import PostgreSQL

PORT = 8080
PASSWORD_OF, KEY_OF = "password-of-{}", "key-of-{}"
"""The password and the key of a host, by its name."""
_CONFIG = """\
common: {{daemonize: false, log_media: stdout, log_level: info, working_dir: .}}
config_paths:
  config_dir: {folder}
  data_dir: {folder}
  simulation_path: {folder}/simulation.yaml
  hub_dir: {folder}/hub
  index_path: {folder}/hub/.index.json
  notification_dir: {folder}/hub
  plugin_dir: {folder}/hub
crowdsec_service: {{acquisition_path: {folder}/acquis.yaml, parser_routines: 1}}
cscli: {{output: json}}
db_config: {{log_level: info, {database}}}
api:
  client: {{insecure_skip_verify: false, credentials_path: {folder}/client.yaml}}
  server: {{log_level: info, listen_uri: "127.0.0.1:{port}", profiles_path: {folder}/profiles.yaml}}
prometheus: {{enabled: false}}
"""
_PROFILES = """\
name: default_ip_remediation
filters: ["Alert.Remediation == true"]
decisions: [{type: ban, duration: 4h}]
on_success: break
"""


def tree() -> Path:
    """Return the folder of the unpacked CrowdSec, which may not exist yet."""
    return Path(os.environ.get("RINGFENCE_LAB", DEFAULT_LAB), "crowdsec")


def why_no_crowdsec() -> str:
    """Return why CrowdSec cannot be run here; empty if it can."""
    return "" if (tree() / "usr/bin/crowdsec").exists() else f"`make lab` unpacks CrowdSec into {tree()}"


def needs_crowdsec() -> None:
    """Leave a test out if the laboratory has no CrowdSec."""
    if reason := why_no_crowdsec():
        pytest.skip(reason)


_SQLITE = "type: sqlite, db_path: {folder}/crowdsec.db, use_wal: true"
_POSTGRESQL = (
    "type: postgresql, host: 127.0.0.1, port: {port}, sslmode: disable, user: postgres, password: none, "
    "db_name: postgres"
)


class CrowdSec:
    """CrowdSec's local API in this network namespace: started, stopped, and asked with ``cscli``.

    ``secret`` signs the tokens, at least 64 characters; "": a new one at each start. ``database`` has its
    rows; None: SQLite.
    """

    _parts: Sequence[str] = ("-no-cs",)
    """The options that choose the parts of CrowdSec: here no log is read."""

    def __init__(
        self, folder: Path, port: int = PORT, secret: str = "", database: PostgreSQL | None = None
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._folder = folder
        self._port = port
        self._database = database
        self._environ = {**os.environ, **({"CS_LAPI_SECRET": secret} if secret else {})}
        self._config = folder / "config.yaml"
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "hub").mkdir(parents=True)
        rows = _SQLITE.format(folder=folder) if database is None else _POSTGRESQL.format(port=database.port)
        files = {
            "config.yaml": _CONFIG.format(folder=folder, port=port, database=rows),
            "profiles.yaml": _PROFILES,
            "simulation.yaml": "simulation: false\n",
            "hub/.index.json": "{}",
            "acquis.yaml": "",
            "client.yaml": f"url: {self.url}\nlogin: cscli\npassword: secret\n",
        }
        for name, text in files.items():
            (folder / name).write_text(text, "utf-8")
        self.cscli("machines", "add", "cscli", "--password", "secret", "--file", "/dev/null")

    def cscli(self, *arguments: str) -> str:
        """Run ``cscli``, and return its output."""
        line = [str(tree() / "usr/bin/cscli"), "--config", str(self._config), *arguments]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def register(self, name: str) -> None:
        """Register a host as a machine and a bouncer."""
        self.cscli("machines", "add", name, "--password", PASSWORD_OF.format(name), "--file", "/dev/null")
        self.cscli("bouncers", "add", name, "--key", KEY_OF.format(name))

    def register_like(self, known: str, names: Sequence[str]) -> None:
        """Register many hosts as copies of a registered one: with its password, and with keys of their own.

        With cscli, hundreds would take minutes.
        """
        keys = {name: hashlib.sha512(KEY_OF.format(name).encode()).hexdigest() for name in names}
        for table, column in ("machines", "machine_id"), ("bouncers", "name"):
            copies = [
                {column: name} | ({"api_key": key} if table == "bouncers" else {})
                for name, key in keys.items()
            ]
            if self._database is None:
                self._copy(table, column, known, copies)
            else:
                self._database.copy(table, column, known, copies)

    def _copy(self, table: str, column: str, known: str, copies: Sequence[Mapping[str, str]]) -> None:
        """Add copies of the row whose ``column`` is ``known`` to a table of SQLite, with other values."""
        with closing(sqlite3.connect(self._folder / "crowdsec.db")) as database, database:
            row = database.execute(f"SELECT * FROM {table} WHERE {column} = ?", (known,))  # noqa: S608
            columns = [one[0] for one in row.description]
            found = {**dict(zip(columns, row.fetchone(), strict=True)), "id": None}
            places = ", ".join("?" * len(columns))
            rows = [[*{**found, **copy}.values()] for copy in copies]
            database.executemany(f"INSERT INTO {table} VALUES ({places})", rows)  # noqa: S608

    def node(self, name: str, folder: Path, **settings: object) -> dict[str, object]:
        """Register a host; return its table ``[crowdsec]``."""
        self.register(name)
        return self.table(name, folder, **settings)

    def table(self, name: str, folder: Path, **settings: object) -> dict[str, object]:
        """Write the files with the credentials of a host, and return its table ``[crowdsec]``."""
        password, key = folder / "crowdsec.password", folder / "crowdsec.key"
        password.write_text(f"{PASSWORD_OF.format(name)}\n", "utf-8")
        key.write_text(f"{KEY_OF.format(name)}\n", "utf-8")
        files = {"password_file": str(password), "key_file": str(key)}
        return {"url": self.url, "machine": name, **files, "interval": "1s", **settings}

    def start(self) -> None:
        """Start the local API, and wait until it answers."""
        with (self._folder / "crowdsec.log").open("ab") as log:
            line = [str(tree() / "usr/bin/crowdsec"), "-c", str(self._config), *self._parts]
            self._process = subprocess.Popen(line, stdout=log, stderr=log, env=self._environ)
        until(self._listens, "CrowdSec's local API")

    @property
    def pid(self) -> int:
        """The process id of the local API, which must run."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """Kill the local API; its database stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def ban(self, value: str, duration: str = "1h") -> None:
        """Ban an address as an administrator does at CrowdSec."""
        self.cscli("decisions", "add", "--ip", value, "--duration", duration, "--reason", "by hand")

    def delete(self, value: str) -> None:
        """End the bans of an address as an administrator does at CrowdSec."""
        self.cscli("decisions", "delete", "--ip", value)

    def decisions(self) -> set[tuple[str, str]]:
        """Return the scenario and the value of each decision in force."""
        request = Request(f"{self.url}/v1/decisions", headers={"X-Api-Key": self._own_key()})  # noqa: S310
        with urlopen(request, timeout=10) as answer:  # noqa: S310 - on loopback
            rows: list[dict[str, Any]] = json.load(answer) or []
        return {(row["scenario"], row["value"]) for row in rows}

    def _own_key(self) -> str:
        marker = self._folder / "own.key"
        if not marker.exists():
            self.cscli("bouncers", "add", "test", "--key", "key-of-the-test")
            marker.write_text("key-of-the-test", "utf-8")
        return marker.read_text("utf-8")

    def _listens(self) -> bool:
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


@contextmanager
def crowdsec(folder: Path, secret: str = "", database: PostgreSQL | None = None) -> Iterator[CrowdSec]:
    """Run CrowdSec's local API until the block ends, with this secret for its tokens and this database."""
    needs_crowdsec()
    api = CrowdSec(folder, secret=secret, database=database)
    api.start()
    try:
        yield api
    finally:
        api.kill()
