"""Secrets, whose texts are masked."""

from urllib.parse import urlsplit

MASK = "***"
"""The text that is shown instead of a secret."""


class Secret:
    """A password that is masked in repr, str, logs and formatting, and that cannot be pickled.

    Use :meth:`reveal` to get the clear text. Equality compares the clear texts.
    """

    __slots__ = ("_clear",)

    def __init__(self, clear: str) -> None:
        self._clear = clear

    def reveal(self) -> str:
        """Return the clear text. Only the code that sends the password needs it."""
        return self._clear

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._clear == self._clear

    def __hash__(self) -> int:
        return hash(self._clear)

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a Secret is not pickled")


class SecretUrl(Secret):
    """A URL that may have a key. Its text masks the user, the query, and what may be a key in the path.

    Some keys stand in the path. A part of the path is masked if it has 40 characters or more.
    Without a dot, 20 are enough, or 8 with a digit among them.
    """

    __slots__ = ()

    def __str__(self) -> str:
        parts = urlsplit(self.reveal())
        user, at, host = parts.netloc.rpartition("@")
        path = "/".join(MASK if _may_be_key(part) else part for part in parts.path.split("/"))
        rest = f"?{MASK}" if parts.query or parts.fragment else ""
        return f"{parts.scheme}://{MASK if user else ''}{at}{host}{path}{rest}"

    def __repr__(self) -> str:
        return f"SecretUrl({str(self)!r})"

    @property
    def has_key(self) -> bool:
        """Whether any part of the URL is masked."""
        return str(self) != self.reveal()


def _may_be_key(part: str) -> bool:
    length, digits = len(part), any(map(str.isdigit, part))
    return length >= 40 or ("." not in part and (length >= 20 or (digits and length >= 8)))  # noqa: PLR2004
