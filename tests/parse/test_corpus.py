"""The corpus: every line yields what stands under it, however its bytes come."""

from zoneinfo import ZoneInfo

import pytest
from tests.parse.corpus import FILES, SOURCE, Sample, claims, samples, told

from ringfence.parse.log import LogReader
from ringfence.parse.reading import Reading

SAMPLES = [sample for path in FILES for sample in samples(path)]
STRANGER = "203.0.113.9"


def check(reading: Reading, expected: str) -> None:
    """Compare one reading with what is claimed of it."""
    head, _, words = expected.partition(": ")
    if head == "nothing":
        assert (reading.event, reading.why, reading.alarm in (None, "somebody tampers with the log")) == (
            None,
            words,
            True,
        )
    elif head == "alarm":
        assert (reading.event, reading.alarm) == (None, words)
    else:
        assert reading.why is None
        assert reading.event is not None
        claimed = claims(expected)
        all_told = told(reading.event)
        assert claimed == {name: all_told[name] for name in claimed}


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_a_line_yields_what_stands_under_it(sample: Sample) -> None:
    """Event, alarm or nothing, line by line, and numbered from one."""
    readings = sample.read()
    assert [reading.line for reading in readings] == list(range(1, len(sample.yields) + 1))
    for reading, expected in zip(readings, sample.yields, strict=True):
        check(reading, expected)


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_nobody_blames_the_stranger(sample: Sample) -> None:
    """The address that forgers write is never named, unless the corpus says that nothing can be done."""
    blamed = {str(reading.event.remote.address) for reading in sample.read() if reading.event is not None}
    if not any(STRANGER in expected for expected in sample.yields):
        assert STRANGER not in blamed


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_pieces_of_any_size_yield_the_same(sample: Sample) -> None:
    """However a read cuts a line in two, it yields the same as at once."""
    data, now = sample.data, sample.now
    for at in range(1, len(data), 7):
        if data[at - 1 : at] != b"\n":
            reader = LogReader(SOURCE, timezone=ZoneInfo(sample.zone))
            assert (
                reader.feed(data[:at], now) + reader.feed(data[at:], now) + reader.end(now) == sample.read()
            )
