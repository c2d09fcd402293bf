"""The demonstration without Asterisk."""

import subprocess
import sys


def test_the_recording_leads_to_a_ban() -> None:
    """``make demo DEMO=replay`` shows the ban of the recorded sender."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.demo", "replay", "--watch", "1"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "198.18.1.139  guess" in done.stdout
