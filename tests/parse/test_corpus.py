"""The corpus: every line yields the result under it, at any split of its bytes."""

from zoneinfo import ZoneInfo

import pytest
from tests.parse.corpus import FILES, SOURCE, Sample, as_text, expected_values, samples

from ringfence.parse.line_result import LineResult
from ringfence.parse.log import LogReader

SAMPLES = [sample for path in FILES for sample in samples(path)]
STRANGER = "203.0.113.9"


def check(result: LineResult, expected: str) -> None:
    """Compare one result with the expected one."""
    head, _, words = expected.partition(": ")
    if head == "nothing":
        assert (
            result.event,
            result.reason,
            result.alarm in (None, "text in the log imitates log lines"),
        ) == (
            None,
            words,
            True,
        )
    elif head == "alarm":
        assert (result.event, result.alarm) == (None, words)
    else:
        assert result.reason is None
        assert result.event is not None
        claimed = expected_values(expected)
        values = as_text(result.event)
        assert claimed == {name: values[name] for name in claimed}


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_a_line_yields_the_expected_result(sample: Sample) -> None:
    """Event, alarm or nothing, line by line, and numbered from one."""
    results = sample.read()
    assert [result.line for result in results] == list(range(1, len(sample.yields) + 1))
    for result, expected in zip(results, sample.yields, strict=True):
        check(result, expected)


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_no_sample_names_the_forged_address(sample: Sample) -> None:
    """The address that forgers write is never named, except where the corpus marks it as unavoidable."""
    blamed = {str(result.event.remote.address) for result in sample.read() if result.event is not None}
    if not any(STRANGER in expected for expected in sample.yields):
        assert STRANGER not in blamed


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_pieces_of_any_size_yield_the_same(sample: Sample) -> None:
    """A line that is split between two reads yields the same as at once."""
    data, now = sample.data, sample.now
    for at in range(1, len(data), 7):
        if data[at - 1 : at] != b"\n":
            reader = LogReader(SOURCE, timezone=ZoneInfo(sample.zone))
            assert (
                reader.feed(data[:at], now) + reader.feed(data[at:], now) + reader.end(now) == sample.read()
            )
