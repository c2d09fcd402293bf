"""Numbers with their nouns."""

from ringfence.plurals import counted


def test_the_noun_agrees_with_the_number() -> None:
    """One thing has the singular, all other numbers the plural, which may be irregular."""
    assert [counted(number, "network") for number in (0, 1, 2)] == ["0 networks", "1 network", "2 networks"]
    assert [counted(number, "address", "addresses") for number in (1, 3)] == ["1 address", "3 addresses"]
