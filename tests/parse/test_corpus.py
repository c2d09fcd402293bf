"""The corpus: every line yields the result under it, at any split of its bytes."""

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from tests.parse.corpus import FILES, SOURCE, as_text, expected_values, samples

from ringfence.parse.line_result import LineResult
from ringfence.parse.log import LogReader

STRANGER = "203.0.113.9"
FILE = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def is_as_expected(result: LineResult, expected: str) -> bool:
    """Whether one result is the expected one."""
    head, _, words = expected.partition(": ")
    if head == "nothing":
        alarms = (None, "text in the log imitates log lines")
        return (result.event, result.reason) == (None, words) and result.alarm in alarms
    if head == "alarm":
        return (result.event, result.alarm) == (None, words)
    if result.event is None:
        return False
    return result.reason is None and expected_values(expected).items() <= as_text(result.event).items()


@FILE
def test_a_line_yields_the_expected_result(path: Path) -> None:
    """Event, alarm or nothing, line by line, and numbered from one."""
    for sample in samples(path):
        results = sample.read()
        assert [result.line for result in results] == list(range(1, len(sample.yields) + 1)), sample
        wrong = [
            (result, expected)
            for result, expected in zip(results, sample.yields, strict=True)
            if not is_as_expected(result, expected)
        ]
        assert wrong == [], sample


@FILE
def test_no_sample_names_the_forged_address(path: Path) -> None:
    """The address that forgers write is never named, except where the corpus marks it as unavoidable."""
    for sample in samples(path):
        blamed = {str(result.event.remote.address) for result in sample.read() if result.event is not None}
        if not any(STRANGER in expected for expected in sample.yields):
            assert STRANGER not in blamed, sample


@FILE
def test_pieces_of_any_size_yield_the_same(path: Path) -> None:
    """A line that is split between two reads yields the same as at once."""
    for sample in samples(path):
        data, now, whole, zone = sample.data, sample.now, sample.read(), ZoneInfo(sample.zone)
        for at in range(1, len(data), 7):
            if data[at - 1 : at] != b"\n":
                reader = LogReader(SOURCE, timezone=zone)
                pieces = reader.receive(data[:at], now) + reader.receive(data[at:], now) + reader.end(now)
                assert pieces == whole, f"{sample}, split at {at}"
