"""SingleAttempts: records in buckets that behave like a dict."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.detect import single_attempts
from ringfence.detect.single_attempts import MAX_RECORD, SingleAttempts

KEYS = st.binary(min_size=2, max_size=2)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["put", "pop", "get"]), KEYS, st.binary(max_size=8)), max_size=200
    )
)
def test_it_answers_as_a_table_does(steps: list[tuple[str, bytes, bytes]]) -> None:
    """It answers as a dict does for any order of puts, pops and gets, also if records contain keys."""
    singles, table = SingleAttempts(2), dict[bytes, bytes]()
    for what, key, record in steps:
        if what == "put" and key not in table:
            singles.put(key, record)
            table[key] = record
        elif what == "pop":
            assert singles.pop(key) == table.pop(key, None)
        assert singles.get(key) == table.get(key)
    assert len(singles) == len(table)
    assert dict(singles) == table


def test_a_key_within_a_record_is_no_key() -> None:
    """Records of one bucket are separated by where they begin, so a key within a record is no key."""
    singles = SingleAttempts(1)
    for number in range(200):
        singles.put(bytes((number,)), bytes(range(200)))
    assert all(singles.get(bytes((number,))) == bytes(range(200)) for number in range(200))
    assert singles.get(b"\xff") is None


def test_some_can_be_dropped() -> None:
    """``drop`` removes the requested number of records, and no more than there are."""
    singles = SingleAttempts(4)
    for number in range(100):
        singles.put(number.to_bytes(4, "big"), b"x")
    assert (singles.drop(30), len(singles), len(list(singles))) == (30, 70, 70)
    assert (singles.drop(100), len(singles), list(singles)) == (70, 0, [])
    assert singles.drop(1) == 0


def test_a_record_that_is_too_long_is_refused() -> None:
    """A record whose length does not fit raises ValueError, and no part of it is kept."""
    singles = SingleAttempts(4)
    with pytest.raises(ValueError, match="range"):
        singles.put(b"1234", bytes(MAX_RECORD))
    assert len(singles) == 0


def test_an_absent_key_within_a_record_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that stands within a record of its bucket, and was not put, has no record."""
    monkeypatch.setattr(single_attempts, "_BUCKETS", 1)
    singles = SingleAttempts(2)
    singles.put(b"aa", b"xbbx")
    singles.put(b"cc", b"")
    assert (singles.get(b"bb"), singles.pop(b"bb")) == (None, None)
    assert singles.get(b"cc") == b""
