"""Durations in fail2ban's files, parsed without evaluation."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.fail2ban import PYTHON, environment, why_no_fail2ban

from ringfence.clock import TEN_YEARS
from ringfence.config.converters import parse_duration
from ringfence.features.fail2ban.carried import length_of, seconds_from

WRITTEN = {
    "600": 600,
    "-1": -1,
    "- 1": -1,
    "10m": 600,
    "10 m": 600,
    "10M": 600,
    "1d12h": 129_600,
    "1d 12h": 129_600,
    "0d 1h 30m": 5_400,
    "1hour+30min": 5_400,
    "1 week": 604_800,
    "2weeks": 1_209_600,
    "1month": 2_629_800,
    "6 mo": 15_778_800,
    "1year": 31_557_600,
    "1.5h": 5_400,
    "90 seconds": 90,
    "600 # ten minutes": 600,
    "0": 0,
}


@pytest.mark.parametrize(("text", "seconds"), WRITTEN.items())
def test_a_time_is_read_as_fail2ban_reads_it(text: str, seconds: float) -> None:
    """Units and sums have fail2ban's results."""
    assert seconds_from(text) == seconds


@pytest.mark.skipif(bool(why_no_fail2ban()), reason=why_no_fail2ban())
def test_fail2ban_itself_reads_these_times_so() -> None:
    """The table above equals the results of fail2ban's own function."""
    code = (
        "import sys; from fail2ban.server.mytime import MyTime; "
        "[print(float(MyTime.str2seconds(text))) for text in sys.argv[1:]]"
    )
    done = subprocess.run(
        [PYTHON, "-c", code, *WRITTEN],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )

    assert [float(line) for line in done.stdout.splitlines()] == [*WRITTEN.values()]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "10 parsecs",
        "m",
        "60*60",
        "10+",
        "*10",
        "10+*5",
        "1/0",
        "1e9",
        "10;5",
        "__import__('os')",
        "(1)",
        "9" * 201,
    ],
)
def test_invalid_durations_are_refused(text: str) -> None:
    """Other Python expressions, and invalid durations, are a ValueError."""
    with pytest.raises(ValueError, match="time"):
        seconds_from(text)


@given(st.text(alphabet="0123456789.+-*/ mhdwyos#\n", max_size=40))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    """Any text is a finite number or a ValueError."""
    try:
        seconds = seconds_from(text)
    except ValueError:
        return
    assert abs(seconds) < float("inf")


@given(st.integers(1, int(TEN_YEARS)))
def test_a_length_is_written_as_the_configuration_reads_it(seconds: int) -> None:
    """A formatted length is parsed back to the same number of seconds."""
    assert parse_duration(length_of(seconds)) == seconds
