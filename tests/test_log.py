"""The daemon's log as systemd's journal gets it: one line an event, whatever is in the fields."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import ringfence

SOURCE = Path(str(ringfence.__file__)).parent.parent


def logged(code: str, level: int = logging.INFO) -> list[str]:
    """Run ``code`` in a process with logging set up, and give the lines on its standard error."""
    head = f"from ringfence import log\nimport logging, structlog\nlog.configure({level})\n"
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
    """Check that the line begins with the time, and give the rest."""
    timestamp, _, rest = line.partition(" ")
    assert timestamp.startswith("timestamp=20")
    assert timestamp.endswith("Z")
    return rest


def test_an_event_is_one_line_of_keys_and_values() -> None:
    """Time, level and event come first, then the fields."""
    [line] = logged("logger.warning('ban.placed', address='192.0.2.1', attempts=5)")

    assert without_time(line) == "level=warning event=ban.placed address=192.0.2.1 attempts=5"


def test_a_list_is_written_for_grep() -> None:
    """Joined by commas, in the same way for one and for many, and not as Python writes it."""
    lines = logged(
        "logger.info('a', accounts=['201'], udp=(5060,))\n"
        "logger.info('b', accounts=['100', '101'], tcp=(5038, 5060), restart_for=[])"
    )

    assert [without_time(line) for line in lines] == [
        "level=info event=a accounts=201 udp=5060",
        "level=info event=b accounts=100,101 tcp=5038,5060 restart_for=",
    ]


def test_what_would_break_a_line_is_escaped() -> None:
    """A line feed, a quote, a traceback: all of it stays within the line."""
    lines = logged(
        "logger.info('one', text='a\\nb', said='\"x\" y')\n"
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    logger.exception('two')"
    )

    assert len(lines) == 2
    assert without_time(lines[0]) == 'level=info event=one text=a\\nb said="\\"x\\" y"'
    assert "ZeroDivisionError: division by zero" in lines[1]


def test_debug_is_for_the_asking() -> None:
    """Without being asked for nothing below info is written; a command may silence all but the end."""
    code = "logger.debug('quiet')"

    assert logged(code) == []
    assert [without_time(line) for line in logged(code, logging.DEBUG)] == ["level=debug event=quiet"]
    assert logged("logger.error('loud')", logging.CRITICAL) == []


def test_the_libraries_say_little() -> None:
    """Panoramisk writes whole actions into its log, so nothing of it is passed on; asyncio's errors are."""
    lines = logged(
        "logging.getLogger('panoramisk.manager').error('Secret: hunter2')\n"
        "logging.getLogger('asyncio').warning('slow')\n"
        "logging.getLogger('asyncio').error('a task died')"
    )

    assert lines == ["asyncio: a task died"]
