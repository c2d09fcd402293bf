"""The numbers that `make mutate NUMBERS=…` changes."""

import ast

from tests.mutate.literals import changed_numbers

SOURCE = '''"""At most 9 of them."""

SMALL, LARGE = 5, 1_024
BITS = 0xFF  # … 8 of them
TEXT = "…"; HOUR = 60 * 60.0
IS_ON = True
NAME = f"{SMALL + 7}"


@frozen
class Rule:
    """One rule."""

    friends: int = 0

    def needed(self, accounts: int = 1) -> int:
        """Return 2."""
        return accounts + 3
'''.encode()


def test_each_number_outside_of_functions_becomes_one_more() -> None:
    """Constants and the defaults of fields change, each alone; functions, texts and truth values do not."""
    assert [one.new for one in changed_numbers(SOURCE)] == [
        "SMALL, LARGE = 6, 1_024",
        "SMALL, LARGE = 5, 1025",
        "BITS = 256  # … 8 of them",
        'TEXT = "…"; HOUR = 61 * 60.0',
        'TEXT = "…"; HOUR = 60 * 61.0',
        "friends: int = 1",
    ]


def test_a_changed_module_differs_in_one_line() -> None:
    """All other lines stay as they are, and Python can read the module."""
    before = SOURCE.splitlines()
    for one in changed_numbers(SOURCE):
        after = one.source.splitlines()
        ast.parse(one.source)
        different = [at for at, pair in enumerate(zip(before, after, strict=True), 1) if pair[0] != pair[1]]
        assert different == [one.line]
