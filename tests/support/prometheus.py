"""A real Prometheus, run from its unpacked Debian package, with all its files in the folder of a test."""

import json
import os
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Self

from tests.support.asterisk import DEFAULT_LAB
from tests.support.daemon import until

_CONFIG = """
global: {{scrape_interval: 4s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: ringfence
    static_configs: [{{targets: ["{target}"]}}]
"""


def tree() -> Path:
    """Return the folder of the unpacked Prometheus, which may not exist yet."""
    return Path(os.environ.get("RINGFENCE_LAB", DEFAULT_LAB), "prometheus")


def why_no_prometheus() -> str:
    """Return why Prometheus cannot be run here; empty if it can."""
    return "" if (tree() / "usr/bin/prometheus").exists() else f"`make lab` unpacks it into {tree()}"


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Prometheus' own tool, and return the completed process."""
    command = [str(tree() / "usr/bin/promtool"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def free_port() -> int:
    """Return a TCP port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


class Prometheus:
    """A Prometheus that scrapes ``target`` every second and evaluates the file ``rules``."""

    def __init__(self, folder: Path, target: str, rules: Path) -> None:
        self._folder = folder
        self._at = f"127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "prometheus.yml").write_text(_CONFIG.format(rules=rules, target=target), "utf-8")

    def __enter__(self) -> Self:
        command = [
            str(tree() / "usr/bin/prometheus"),
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'tsdb'}",
            f"--web.listen-address={self._at}",
        ]
        with (self._folder / "prometheus.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            until(lambda: self.query("up == 1"), "Prometheus scrapes the daemon", 60.0, 0.1)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the present result of an expression; none before Prometheus answers."""
        try:
            found: list[dict[str, Any]] = self._get("query", query=expression)["result"]
        except ConnectionError:
            return []
        return found

    def alerts(self) -> dict[str, set[str]]:
        """Return the states of the present alerts by their names."""
        found: dict[str, set[str]] = {}
        for alert in self._get("alerts")["alerts"]:
            found.setdefault(alert["labels"]["alertname"], set()).add(alert["state"])
        return found

    def _get(self, what: str, **arguments: str) -> dict[str, Any]:
        url = f"http://{self._at}/api/v1/{what}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                found: dict[str, Any] = json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it starts
                raise ConnectionError from None
            raise AssertionError(f"{url}: {error.read().decode()}") from None
        except urllib.error.URLError:
            raise ConnectionError from None
        return found
