"""Programs of channels by their service: input, output, end, and what the daemon accepts as a result."""

import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import until
from tests.support.programs import program_service

from ringfence.features.notify import runner
from ringfence.features.notify.programs import MAX_RESULT, run
from ringfence.features.notify.runner import MAX_OUTPUT, RunnerError


@pytest.fixture(name="channel")
def _channel(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Return a channel, whose service runs."""
    with program_service(tmp_path) as path:
        yield {"socket": path, "timeout": 10.0}


def test_a_program_gets_its_input_and_environment(
    channel: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large input does not block; variables that concern the service are not passed on."""
    monkeypatch.setenv("RINGFENCE_NOTIFY__MAIL__PASSWORD", "geheim")
    monkeypatch.setenv("PYTHONPATH", "/x")

    run(channel, ["sh", "-c", "test $(wc -c) = 1000000"], "x" * 1_000_000)
    run(channel, ["true"], "x" * 1_000_000)
    run(channel, ["sh", "-c", "test $RINGFENCE_X = y"], "", variables={"RINGFENCE_X": "y"})
    run(channel, ["sh", "-c", 'test -z "$PYTHONPATH$RINGFENCE_NOTIFY__MAIL__PASSWORD"'], "")


def test_a_configuration_is_a_file_in_memory(channel: dict[str, Any]) -> None:
    """Its bytes arrive as they are, also if they are not UTF-8, and no other argument is added."""
    found = b"urls:\n - x://\xff\n".decode("utf-8", "surrogateescape")
    script = "import sys; sys.exit(open(sys.argv[1][16:-2], 'rb').read() != b'urls:\\n - x://\\xff\\n')"

    run(channel, [sys.executable, "-c", script], "", config=found, config_query="?x")
    run(channel, ["sh", "-c", "test $# = 0", "sh"], "")


def test_the_output_is_bounded(channel: dict[str, Any]) -> None:
    """The end of a long output is kept."""
    program = [sys.executable, "-c", "import sys; print('x' * 10_000_000 + 'end'); sys.exit(1)"]
    with pytest.raises(ValueError, match=r"xend$") as caught:
        run(channel, program, "")

    assert len(str(caught.value)) < MAX_OUTPUT + 200


@pytest.mark.parametrize("job", ["sleep 60", "timeout 60 yes"])
def test_a_job_in_the_background_is_not_waited_for(channel: dict[str, Any], job: str) -> None:
    """The result is that of the program itself, although the job keeps its output open, or fills it."""
    began = time.monotonic()
    run(channel, ["sh", "-c", f"{job} & true"], "")

    assert time.monotonic() - began < 50


def test_a_program_that_fails_is_an_error(channel: dict[str, Any]) -> None:
    """The error has the code and the reason, or why the program cannot be run."""
    with pytest.raises(ValueError, match=r"^sh ended with 3: no$"):
        run(channel, ["sh", "-c", "echo no >&2; exit 3"], "")
    with pytest.raises(ValueError, match=r"^sh ended with -9: no reason given$"):
        run(channel, ["sh", "-c", "kill -9 $$"], "")
    with pytest.raises(ValueError, match=r"^/nonexistent/x: cannot be run: No such file or directory$"):
        run(channel, ["/nonexistent/x"], "")


def test_a_program_that_hangs_is_an_error(channel: dict[str, Any]) -> None:
    """The service kills it when its time is over; the client waits no longer than that."""
    began = time.monotonic()
    with pytest.raises((ValueError, TimeoutError)):
        run({**channel, "timeout": 1.0}, ["sleep", "60"], "")

    assert time.monotonic() - began < 50


def test_a_client_that_goes_ends_its_program(channel: dict[str, Any], tmp_path: Path) -> None:
    """When the daemon has ended an attempt, the program does not continue."""
    started, late = tmp_path / "started", tmp_path / "late"
    command = ["sh", "-c", f"touch {started}; sleep 2; touch {late}"]
    job = {"command": command, "input": "", "variables": {}}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(channel["socket"])
        connection.sendall(json.dumps({**job, "config": None, "config_query": "", "timeout": 60.0}).encode())
        connection.shutdown(socket.SHUT_WR)
        until(started.exists, "the program")
    time.sleep(3.0)

    assert not late.exists()


def test_without_the_service_no_program_runs(tmp_path: Path) -> None:
    """The error names the socket and the page; nothing runs with the daemon's user instead."""
    channel = {"socket": str(tmp_path / "none"), "timeout": 5.0}
    reason = r"none: No such file or directory \(ringfence-notify\.socket must run; without systemd, see "
    with pytest.raises(ValueError, match=rf"^touch cannot be run: .*{reason}"):
        run(channel, ["touch", str(tmp_path / "run")], "")

    assert not (tmp_path / "run").exists()


@contextmanager
def answering(folder: Path, answer: bytes) -> Iterator[dict[str, Any]]:
    """Yield a channel whose service answers anything with ``answer``."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "hostile"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while connection.recv(65_536):
                    pass
                try:
                    connection.sendall(answer)
                except BrokenPipeError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        yield {"socket": str(folder / "hostile"), "timeout": 5.0}
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [b"", b"x", b"[" * 4000, b"null", b"{}", b'{"code": "0"}', b'{"code": 1}', b"0" * 2**24, b"\xff"],
)
def test_a_hostile_result_is_an_error(tmp_path: Path, answer: bytes) -> None:
    """A result that is too long or has another form is no success."""
    with answering(tmp_path, answer) as channel, pytest.raises(ValueError, match=r"ended without a result$"):
        run(channel, ["x"], "")
    assert MAX_RESULT < 10_000


def test_no_program_runs_as_root_or_as_the_daemon() -> None:
    """A service that somebody starts with the wrong user refuses."""
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(RunnerError, match="needs a user of its own"):
        runner.refuse_wrong_user(ours)
