"""``ringfence report``, with the daemon up and down."""

import json
import stat
from pathlib import Path

from tests.support.amiserver import Script
from tests.support.captures import capture
from tests.support.daemon import GRANTED, Guard, ami_server, until

GUESSER = "198.18.1.101"
GUESSES = capture("asterisk-22", "wrong-password-register").ami.read_bytes()


def test_a_report_of_a_guesser(tmp_path: Path) -> None:
    """The report has the attempts, the guesser and the account, also when the daemon has stopped."""
    page = tmp_path / "report.html"
    with (
        ami_server(Script(play=[GRANTED, GUESSES])) as pbx,
        Guard(tmp_path, ami={"port": pbx.port}, rules={"guess": {"attempts": 3}}) as guard,
    ):
        until(lambda: guard.banned() == {GUESSER}, "the ban")
        guard.must("unban", GUESSER)
        up = guard.must("report")
        found = json.loads(guard.must("report", "--json", "--since", "1d"))
        assert guard.must("report", "--html", str(page)) == ""
    done = guard.command("report", "--since", "8w")

    for text in (up, done.stdout):
        assert "attempts guess" in text
        assert f"{GUESSER} " in text
        assert "alice" in text
        assert "1 ban ended (1 removed)" in text
    assert "limiter dropped 0 packets" in up
    assert "The daemon does not answer" in done.stderr
    assert "the last 31 days" in done.stderr
    assert found["networks"] == [{"name": "198.18.1.0/24", "attempts": 3, "addresses": 1}]
    assert GUESSER in page.read_text("utf-8")
    assert stat.S_IMODE(page.stat().st_mode) == 0o600


def test_errors(tmp_path: Path) -> None:
    """A wrong period is a usage error, a file that cannot be written is named, and a database is needed."""
    guard = Guard(tmp_path)
    assert guard.command("report").returncode == 3
    with guard:
        done = guard.command("report", "--html", "/nowhere/report.html")
        assert (done.returncode, done.stderr) == (
            1,
            "cannot write /nowhere/report.html: No such file or directory\n",
        )
        assert guard.command("report", "--since", "soon").returncode == 2


def test_a_running_daemon_needs_no_good_configuration(tmp_path: Path) -> None:
    """The daemon goes on with its old one; the mistakes of the new one are printed once."""
    with Guard(tmp_path) as guard:
        guard.configure(colour=1)
        done = guard.command("report")

    assert done.returncode == 0
    assert "Phones that need a person" in done.stdout
    assert done.stderr.count("colour: unknown key") == 1, done.stderr
