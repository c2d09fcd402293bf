"""Which passwords a guesser has at once. A password is looked at here, and only the verdict leaves.

Who guesses at a PBX tries the account's own name, then some hundred words and rows of digits, and has five
guesses an address before he is banned. Whoever has many addresses has more, and so a password must stand ten
thousand. How good it is beyond that is not judged.
"""

from collections.abc import Iterable

from ringfence.model import Secret

SHORTEST = 8
DIGITS = 12
"""Of nothing but digits it must be so long: such passwords are counted through."""

_HARDLY_MORE = 4
_FEWEST = 4
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
"""Words of the samples and manuals that configurations are copied from, and of scanners' lists."""
_ROWS = ("0123456789" * 3, "9876543210" * 3, "abcdefghijklmnopqrstuvwxyz", "qwertyuiopasdfghjklzxcvbnm")


def is_weak(password: Secret, names: Iterable[str]) -> bool:
    """Say whether a password is short, well known, or hardly more than one of the account's own ``names``."""
    clear = password.reveal().strip().lower()
    return (
        len(clear) < SHORTEST
        or (clear.isdecimal() and len(clear) < DIGITS)
        or clear in _WELL_KNOWN
        or len(set(clear)) < _FEWEST
        or any(clear in row for row in _ROWS)
        or _is_named(clear, names)
    )


def _is_named(clear: str, names: Iterable[str]) -> bool:
    """Say whether a password is made of the names, forwards or backwards, with hardly anything else."""
    rest = clear
    for name in sorted({name.strip().lower() for name in names} - {""}, key=len, reverse=True):
        rest = rest.replace(name, "").replace(name[::-1], "")
    return rest != clear and len(rest) <= _HARDLY_MORE
