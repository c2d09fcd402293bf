"""The daemon's log as systemd's journal receives it: one line for each event, whatever the fields contain."""

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import ringfence
from ringfence.guard.process import LogStream

SOURCE = Path(str(ringfence.__file__)).parent.parent


def logged(code: str, level: int = logging.INFO) -> list[str]:
    """Run ``code`` in a process with logging set up, and return the lines on its standard error."""
    head = f"from ringfence.guard.process import *\nimport logging, structlog\nconfigure_logging({level})\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{head}logger = structlog.get_logger()\n{code}"],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def without_time(line: str) -> str:
    """Check that the line begins with the time, and return the rest."""
    timestamp, _, rest = line.partition(" ")
    assert timestamp.startswith("timestamp=20")
    assert timestamp.endswith("Z")
    return rest


def test_an_event_is_one_line_of_keys_and_values() -> None:
    """A line has the time, the level and the event first, and then the fields."""
    [line] = logged("logger.warning('ban.placed', address='192.0.2.1', attempts=5)")

    assert without_time(line) == "level=warning event=ban.placed address=192.0.2.1 attempts=5"


def test_a_list_is_written_for_grep() -> None:
    """A list of any length is written as values joined by commas, and not in Python's notation."""
    lines = logged(
        "logger.info('a', accounts=['201'], udp=(5060,))\n"
        "logger.info('b', accounts=['100', '101'], tcp=(5038, 5060), restart_for=[])"
    )

    assert [without_time(line) for line in lines] == [
        "level=info event=a accounts=201 udp=5060",
        "level=info event=b accounts=100,101 tcp=5038,5060 restart_for=",
    ]


def test_what_would_break_a_line_is_escaped() -> None:
    """A line feed, a quote and a traceback are escaped and stay within one line."""
    lines = logged(
        "logger.info('one', text='a\\nb', said='\"x\" y')\n"
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    logger.exception('two')"
    )

    assert len(lines) == 2
    assert without_time(lines[0]) == 'level=info event=one text=a\\nb said="\\"x\\" y"'
    assert "ZeroDivisionError: division by zero" in lines[1]


def test_debug_is_for_the_asking() -> None:
    """Debug events are written only on request, and a command can silence everything below critical."""
    code = "logger.debug('quiet')"

    assert logged(code) == []
    assert [without_time(line) for line in logged(code, logging.DEBUG)] == ["level=debug event=quiet"]
    assert logged("logger.error('loud')", logging.CRITICAL) == []


def test_the_libraries_log_little() -> None:
    """Panoramisk's log is dropped, because it contains whole actions; asyncio's errors are written."""
    lines = logged(
        "logging.getLogger('panoramisk.manager').error('Secret: hunter2')\n"
        "logging.getLogger('asyncio').warning('slow')\n"
        "logging.getLogger('asyncio').error('a task died')"
    )

    assert lines == ["asyncio: a task died"]


def test_hostile_text_stays_in_its_line() -> None:
    """Control and format characters are escaped in every field, in lists, and in tracebacks."""
    lines = logged(
        "hostile = 'a\\x1b[31m\\r\\n\\u202e\\u2028\\x9b[red]'\n"
        "logger.info('one', account=hostile, many=[hostile, hostile])\n"
        "try:\n    raise ValueError(hostile)\nexcept ValueError:\n    logger.exception('two')\n"
        "logging.getLogger('asyncio').error('said %s', hostile)"
    )

    assert len(lines) == 4
    assert r"account=a\x1b[31m\r\n\u202e\u2028\x9b[red]" in lines[0]
    assert all(line.isprintable() for line in lines)
    assert [line.partition("=")[0] for line in lines[:2]] == ["timestamp"] * 2
    assert lines[3].startswith("  ")


def test_a_field_has_an_end() -> None:
    """A field of 64 KB is cut."""
    [line] = logged("logger.info('one', account='x' * 65536)")

    assert len(line) < 4_400
    assert line.endswith('(65536 characters)"')


def test_a_line_within_a_line_does_not_wait_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the collector runs in a write, asyncio logs a lost task in the same thread: both lines appear."""
    reader, writer = os.pipe()
    log = LogStream(writer)
    write, nested = os.write, iter(["inner\n"])

    def collecting(descriptor: int, data: bytes) -> int:
        for line in nested:
            log.write(line)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", collecting)
    thread = threading.Thread(target=log.write, args=("outer\n",), daemon=True)
    thread.start()
    thread.join(10.0)

    assert not thread.is_alive()
    assert (os.read(reader, 100), log.lost) == (b"inner\nouter\n", 0)
    os.close(reader)
    os.close(writer)
