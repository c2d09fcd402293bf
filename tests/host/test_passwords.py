"""Which passwords are guessed at once."""

import pytest

from ringfence.host.passwords import is_weak
from ringfence.model import Secret


@pytest.mark.parametrize(
    "password",
    [
        *(
            "",
            "204",
            "204204",
            "402",
            "alice",
            "ALICE123",
            "secilaalice",
            "x-alice-9",
            "204alice204",
            "x7Kq2",
        ),
        *("1234567890", "73519264820", "aaaaaaaaaaaa", "abababababab", "qwertyuiop"),
        *("passw0rd", "changeme", "Secret123"),
    ],
)
def test_weak(password: str) -> None:
    """Short, of few digits, well known, a row of keys, or the account's name with hardly more."""
    assert is_weak(Secret(password), ["204", "alice", ""])


@pytest.mark.parametrize(
    "password",
    ["correct-horse", "x7Kq2pWz", "735192648201", "alice-in-wonderland", "manager-secret", "3f9c204ab1"],
)
def test_not_weak(password: str) -> None:
    """What takes more than some hundred guesses is not judged further."""
    assert not is_weak(Secret(password), ["204", "alice"])
