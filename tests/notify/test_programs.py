"""Programs as children: their input, their output and their end."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ringfence.notify.programs import MAX_OUTPUT, run


def test_a_program_gets_its_input_and_environment() -> None:
    """A large input does not block, also if the program reads none of it."""
    text = b"x" * 1_000_000

    assert run(["wc", "-c"], text) == "1000000"
    assert run(["true"], text) == ""
    assert run(["sh", "-c", "echo $RINGFENCE_X"], b"", {**os.environ, "RINGFENCE_X": "y"}) == "y"


def test_the_output_is_bounded() -> None:
    """The end of a long output is kept."""
    found = run([sys.executable, "-c", "print('x' * 10_000_000 + 'end')"], b"")

    assert len(found) < MAX_OUTPUT + 1
    assert found.endswith("xend")


@pytest.mark.parametrize("job", ["sleep 60", "yes"])
def test_a_job_in_the_background_is_not_waited_for(tmp_path: Path, job: str) -> None:
    """The result is that of the program itself, although the job keeps its output open, or fills it."""
    began = time.monotonic()
    run(["sh", "-c", f"{job} & echo $! > {tmp_path}/pid"], b"")
    took = time.monotonic() - began
    with suppress(ProcessLookupError):  # its output is gone, which may have ended it
        os.kill(int((tmp_path / "pid").read_text("ascii")), signal.SIGKILL)

    assert took < 5


def test_a_program_that_fails_is_an_error() -> None:
    """The error has the code and the reason."""
    with pytest.raises(ValueError, match=r"^sh ended with 3: no$"):
        run(["sh", "-c", "echo no >&2; exit 3"], b"")
    with pytest.raises(ValueError, match=r"^sh ended with -9: no reason given$"):
        run(["sh", "-c", "kill -9 $$"], b"")


def test_a_program_that_is_missing_is_an_error() -> None:
    """The error names it."""
    with pytest.raises(ValueError, match=r"^/nonexistent/x cannot be run: No such file or directory$"):
        run(["/nonexistent/x"], b"")
