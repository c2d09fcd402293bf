"""ringfence beside a real Asterisk's own folders: it finds the log, and reports which events are missing."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.asterisk import SECRET
from tests.support.asterisk_files import MANAGER_PORT, MANAGER_USER, PASSWORD
from tests.support.daemon import Guard, until
from tests.support.lab import Lab

pytestmark = pytest.mark.asterisk

OWN = "/var/log/asterisk/ringfence"

# For the daemon and its commands, the laboratory's folders are mounted at the paths of an installed Asterisk.
_AS_INSTALLED = """\
set -eu
mount -t tmpfs tmpfs "$1"
mkdir -p "$1/upper/asterisk" "$1/work" "$1/log/asterisk"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/upper,workdir=$1/work" /etc
mount --bind "$2/etc" /etc/asterisk
mount --bind "$2/log" "$1/log/asterisk"
mount --rbind "$1/log" /var/log
shift 2
exec "$@"
"""


@contextmanager
def guard(lab: Lab, folder: Path, port: int = MANAGER_PORT) -> Iterator[Guard]:
    """Guard an Asterisk as if it were installed here, without any setting about its logs."""
    scratch = folder / "scratch"
    scratch.mkdir()
    mounted = ["sh", "-c", _AS_INSTALLED, "sh", str(scratch), str(lab.asterisk.folder)]
    prefix = lab.network.in_pbx("unshare", "--mount", "--propagation", "private", *mounted)
    ami = {"username": MANAGER_USER, "secret": SECRET, "port": port}
    asterisk = [{"name": "pbx", "ami": ami, "wire": {"enabled": False}}]
    with Guard(folder, prefix=prefix, asterisk=asterisk) as running:
        yield running


def read_of(log: Mapping[str, int]) -> int:
    """Return the number of messages of a log that were read, or skipped because AMI delivers them."""
    return log["events"] + log["skipped"]


def test_the_own_channel_is_found_and_complete(asterisk22: Lab, tmp_path: Path) -> None:
    """The log is read beside AMI, attempts count once, and `check` lists its contents, but no password."""
    with guard(asterisk22, tmp_path) as running:
        running.config.chmod(0o600)
        until(lambda: running.states().get(f"pbx/log:{OWN}") == "listening", "the log")
        until(lambda: running.source_is("listening"), "all sources")
        asterisk22.attack("guess", "--number", "4", "--sources", "198.19.27.1", "--timeout", "5")
        until(lambda: read_of(running.status()["sources"][1]) >= 12, "the log's lines")
        until(lambda: running.status()["attempts"] >= 4, "the attempts")
        status, done = running.status(), running.command("check")

    assert status["attempts"] == 4
    assert [source["name"] for source in status["sources"]][:2] == ["pbx/ami", f"pbx/log:{OWN}"]
    lines = done.stdout.split("\n")
    assert f"ok  pbx: log {OWN}: is read (notice, security)" in lines
    assert "ok  asterisk's settings: no setting hides attempts from its logs" in lines
    assert PASSWORD not in done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_the_log_that_was_found_counts_without_ami(asterisk22: Lab, tmp_path: Path) -> None:
    """Without the manager interface the security lines of that log lead to a guesser's ban."""
    with guard(asterisk22, tmp_path, port=1) as running:
        until(lambda: running.states().get(f"pbx/log:{OWN}") == "listening", "the log")
        asterisk22.attack("guess", "--number", "20", "--sources", "198.19.27.2", "--timeout", "5")
        until(lambda: running.banned() == {"198.19.27.2"}, "the ban")


def test_settings_that_hide_failures_are_reported(tmp_path: Path) -> None:
    """Settings that hide failures are found in a real Asterisk's files, and agree with its own report."""
    extra = {
        "pjsip.conf": "[global]\ntype = global\nendpoint_identifier_order = auth_username,username,ip\n",
        "iax.conf": "[general]\nbindport = 4569\n",
    }
    with Lab.made("22", extra) as lab, guard(lab, tmp_path) as running:
        done = running.command("check").stdout
        shown = lab.asterisk.cli("pjsip show settings")

    assert "unidentified_request_count                 : 5" in shown
    assert "asterisk's settings: PJSIP: unknown callers are reported only from request 5" in done
    assert "asterisk's settings: IAX2: failed logins are logged nowhere" in done
