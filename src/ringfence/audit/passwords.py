"""Passwords that can be guessed at once. A password is checked here, and only the result is returned.

Attackers of a PBX try the account's name, then some hundred words and digit sequences. Each address has five
guesses until it is banned, so an attacker with many addresses has thousands. A password must therefore resist
ten thousand guesses; its strength beyond that is not checked.
"""

from collections.abc import Iterable

from ringfence.model import Secret

MIN_LENGTH = 8
MIN_DIGITS = 12
"""The minimum length of a password of digits only: attackers try all short sequences of digits."""

_MAX_REST = 4
_MIN_DISTINCT = 4
_WELL_KNOWN = frozenset(
    {
        *("password", "passw0rd", "password1", "password123", "p@ssw0rd", "p@ssword", "secret", "secret123"),
        *("changeme", "changethis", "default", "letmein", "welcome", "welcome1", "qwerty", "qwertyuiop"),
        *("asterisk", "asterisk123", "freepbx", "trixbox", "elastix", "issabel", "amp109", "amp111"),
        *("admin", "admin123", "administrator", "root", "toor", "manager", "mysecret", "supersecret"),
        *("abc123", "abcd1234", "a1b2c3d4", "1q2w3e4r", "1qaz2wsx", "q1w2e3r4", "iloveyou", "test1234"),
        *("testtest", "telephone", "voip1234", "sip12345", "sippassword", "unsecurepassword", "verysecret"),
        *("change-this-secret", "yoursecret", "your_password", "yourpassword", "telecom1", "phone123"),
    }
)
"""Passwords from word lists of attackers, and from samples and manuals that administrators copy."""
_ROWS = ("0123456789" * 3, "9876543210" * 3, "abcdefghijklmnopqrstuvwxyz", "qwertyuiopasdfghjklzxcvbnm")


def is_weak(password: Secret, names: Iterable[str]) -> bool:
    """Whether a password can be guessed easily.

    This is so if it is short, well known, or a sequence of the alphabet, of digits or of the keyboard. It is
    also so if it has few different characters, or is little more than the account's ``names``.
    """
    clear = password.reveal().strip().lower()
    return (
        len(clear) < MIN_LENGTH
        or (clear.isdecimal() and len(clear) < MIN_DIGITS)
        or clear in _WELL_KNOWN
        or len(set(clear)) < _MIN_DISTINCT
        or any(clear in row for row in _ROWS)
        or _is_named(clear, names)
    )


def _is_named(clear: str, names: Iterable[str]) -> bool:
    """Whether a password consists of the names, and of at most ``_MAX_REST`` other characters.

    The names may be written forwards or backwards.
    """
    rest = clear
    for name in sorted({name.strip().lower() for name in names} - {""}, key=len, reverse=True):
        rest = rest.replace(name, "").replace(name[::-1], "")
    return rest != clear and len(rest) <= _MAX_REST
