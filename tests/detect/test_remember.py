"""Bounded: a table keeps what was used last."""

from collections import OrderedDict

from ringfence.detect.sessions import remember


def test_the_oldest_goes_where_there_are_too_many() -> None:
    """A key that is stored again becomes the latest, with its new value."""
    table = OrderedDict[str, int]()
    for key, value in (("a", 1), ("b", 2), ("a", 3), ("c", 4)):
        remember(table, key, value, 2)
    assert list(table.items()) == [("a", 3), ("c", 4)]
