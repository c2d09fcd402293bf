"""Recent: what was used last is kept."""

from collections import OrderedDict

from ringfence.detect.recent import remember


def test_the_oldest_goes_where_there_are_too_many() -> None:
    """To remember something again makes it the latest, with its new value."""
    table = OrderedDict[str, int]()
    for key, value in (("a", 1), ("b", 2), ("a", 3), ("c", 4)):
        remember(table, key, value, 2)
    assert list(table.items()) == [("a", 3), ("c", 4)]
