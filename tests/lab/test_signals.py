"""The suite's own signals: tests can interrupt their processes, however the suite was started."""

import signal
import subprocess
import sys

WAIT = "import sys, time; print('up', flush=True); time.sleep(60)"
"""A program that an interrupt ends."""


def test_a_started_process_can_be_interrupted() -> None:
    """SIGINT ends a process that a test started, with KeyboardInterrupt."""
    with subprocess.Popen(
        [sys.executable, "-c", WAIT], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == b"up\n"
        one.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in one.communicate(timeout=120)[1]


def test_it_also_works_under_a_parent_that_ignores_interrupts() -> None:
    """It also works if the suite runs in the background of a shell, for example with nohup."""
    test = f"{__file__}::{test_a_started_process_can_be_interrupted.__name__}"
    ignoring = f"trap '' INT; exec {sys.executable} -m pytest -q -p no:cacheprovider {test}"
    done = subprocess.run(["bash", "-c", ignoring], capture_output=True, text=True, timeout=600, check=False)

    assert done.returncode == 0, done.stdout
