"""ringfence beside a real Asterisk's own folders: it finds the log, and says what is kept from it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.asterisk import SECRET
from tests.support.asterisk_files import MANAGER_PORT, MANAGER_USER, PASSWORD
from tests.support.daemon import Guard, until
from tests.support.lab import Lab

pytestmark = pytest.mark.asterisk

OWN = "/var/log/asterisk/ringfence"

# The laboratory's folders stand where an installed Asterisk has its own, for the daemon and its commands.
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
    """Guard an Asterisk as if it were installed here, without a word about its logs."""
    scratch = folder / "scratch"
    scratch.mkdir()
    place = ["sh", "-c", _AS_INSTALLED, "sh", str(scratch), str(lab.asterisk.folder)]
    prefix = lab.network.in_pbx("unshare", "--mount", "--propagation", "private", *place)
    ami = {"username": MANAGER_USER, "secret": SECRET, "port": port}
    asterisk = [{"name": "pbx", "ami": ami, "wire": {"enabled": False}}]
    with Guard(folder, prefix=prefix, asterisk=asterisk) as running:
        yield running


def test_the_own_channel_is_found_and_all_is_told(asterisk22: Lab, tmp_path: Path) -> None:
    """The log is read beside AMI, attempts count once, and `check` says what it carries, but no password."""
    with guard(asterisk22, tmp_path) as running:
        running.config.chmod(0o600)
        until(lambda: running.states().get(f"pbx/log:{OWN}") == "listening", "the log")
        until(lambda: running.source_is("listening"), "all sources")
        asterisk22.attack("guess", "--number", "4", "--sources", "198.19.27.1")
        until(lambda: running.status()["sources"][1]["events"] >= 12, "the log's tellings")
        status, done = running.status(), running.command("check")

    assert status["attempts"] == 4
    assert [source["name"] for source in status["sources"]][:2] == ["pbx/ami", f"pbx/log:{OWN}"]
    lines = done.stdout.split("\n")
    assert f"ok  pbx: log {OWN}: is read (notice, security)" in lines
    assert "ok  asterisk's settings: nothing is kept from its logs" in lines
    assert PASSWORD not in done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_what_is_found_counts_where_ami_is_away(asterisk22: Lab, tmp_path: Path) -> None:
    """Without the manager interface the security lines of the log that was found ban a guesser."""
    with guard(asterisk22, tmp_path, port=1) as running:
        until(lambda: running.states().get(f"pbx/log:{OWN}") == "listening", "the log")
        asterisk22.attack("guess", "--number", "5", "--sources", "198.19.27.2")
        until(lambda: running.banned() == {"198.19.27.2"}, "the ban")


def test_what_is_kept_back_is_told(tmp_path: Path) -> None:
    """Settings that hide failures are found in a real Asterisk's files, and are what it says itself."""
    extra = {
        "pjsip.conf": "[global]\ntype = global\nendpoint_identifier_order = auth_username,username,ip\n",
        "iax.conf": "[general]\nbindport = 4569\n",
    }
    with Lab.made("22", extra) as lab, guard(lab, tmp_path) as running:
        done = running.command("check").stdout
        shown = lab.asterisk.cli("pjsip show settings")

    assert "unidentified_request_count                 : 5" in shown
    assert "asterisk's settings: PJSIP: callers that it does not know are told of from request 5" in done
    assert "asterisk's settings: IAX2: failed logins are logged nowhere" in done
