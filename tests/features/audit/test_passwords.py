"""Which passwords are guessed at once."""

import pytest

from ringfence.features.audit.accounts import is_weak
from ringfence.values.secret import Secret


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
    """Short, few digits, well known, a keyboard row, or little more than the account's name."""
    assert is_weak(Secret(password), ["204", "alice", ""])


@pytest.mark.parametrize(
    "password",
    ["correct-horse", "x7Kq2pWz", "735192648201", "alice-in-wonderland", "manager-secret", "3f9c204ab1"],
)
def test_not_weak(password: str) -> None:
    """A password that needs more than some hundred guesses is accepted."""
    assert not is_weak(Secret(password), ["204", "alice"])
