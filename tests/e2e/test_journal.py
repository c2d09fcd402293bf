"""From a real Asterisk by syslog and a real journal to attempts, without a log file and AMI."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.asterisk import SECRET
from tests.support.daemon import Guard, until
from tests.support.journal import Journald, why_no_journald
from tests.support.lab import Lab

pytestmark = [
    pytest.mark.asterisk,
    pytest.mark.skipif(bool(why_no_journald()), reason=why_no_journald()),
]

LOGGER = "syslog.local0 => notice,security\n"
# syslog(3) writes to /dev/log; in Asterisk's mount namespace that is the journal's socket.
_TO_THE_JOURNAL = """\
set -eu
mkdir -p "$1/run/systemd"
mount --bind "$2" "$1/run/systemd"
mount -t tmpfs tmpfs "$1/dev"
mknod -m 666 "$1/dev/null" c 1 3
mknod -m 666 "$1/dev/urandom" c 1 9
ln -s /run/systemd/journal/dev-log "$1/dev/log"
"""


def _is_seen_by_nsenter(path: Path) -> bool:
    """Whether ``nsenter --mount`` finds a file of this process: it begins at the root of the namespace."""
    enter = ["nsenter", "--mount=/proc/self/ns/mnt", "test", "-e", str(path)]
    return subprocess.run(enter, check=False).returncode == 0


@pytest.fixture(name="lab", params=["22", pytest.param("16", marks=pytest.mark.long)])
def _lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Yield each Asterisk, with syslog as another log."""
    if not _is_seen_by_nsenter(Path(__file__)):
        pytest.skip("nsenter leaves this chroot, so it cannot mount the journal's folder for Asterisk")
    with Lab.made(request.param, {"logger.conf": LOGGER}) as lab:
        yield lab


def test_guesses_in_the_journal_are_listed(lab: Lab, tmp_path: Path) -> None:
    """Security lines of Asterisk's unit report guesses at PJSIP. Without AMI and the wire they ban nobody.

    Asterisk may have cut such a line within the sender's text, and a syslog does not show where.
    """
    with Journald(tmp_path / "journal") as journald:
        journald.adopt(lab.asterisk.pid)
        enter = ["nsenter", f"--target={lab.asterisk.pid}", "--mount", "sh", "-c", _TO_THE_JOURNAL, "sh"]
        subprocess.run([*enter, str(lab.asterisk.tree), str(journald.sockets)], check=True)
        asterisk = [
            {
                "name": "pbx",
                "ami": {"port": 1, "secret": SECRET},
                "logs": {"paths": [], "journal": True},
                "wire": {"enabled": False},
            }
        ]
        environ = {"PATH": journald.path_for(tmp_path)}
        with Guard(tmp_path, prefix=lab.network.in_pbx(), asterisk=asterisk, environ=environ) as guard:
            until(lambda: guard.states()["pbx/journal"] == "listening", "the journal")
            port = {"22": "5060"}.get(lab.asterisk.tree.name, "5080")
            target = ("--target", f"198.18.0.1:{port}", "--timeout", "5")
            lab.attack("guess", "--number", "5", "--sources", "198.19.28.1", *target)
            until(lambda: guard.status()["unconfirmed"] == 5, "the guesses")
            [sender] = guard.status()["watched"]
            assert (sender["address"], sender["accounts"]) == ("198.19.28.1", ["alice"])
            assert guard.banned() == set()
            until(lambda: "evidence.unconfirmed" in guard.alarm_codes(), "the alarm")
