"""Links for one use, each of which admits the address that opens it to the fence for a time.

A link admits one address, and permits nothing else. The live page passes on the link's token and the
address that it came from. Only hashes of tokens are kept, and only in memory: a restart ends all links.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from hmac import compare_digest

from attrs import frozen

from ringfence.clock import Clock
from ringfence.errors import ControlError
from ringfence.values.secret import Secret

MOST_LINKS = 32
"""The maximum number of admission links that are neither used nor expired."""
MOST_VALID = 86_400.0
"""The longest time (seconds) until an admission link expires."""
MOST_ADMITTED_FOR = 30 * 86_400.0
"""The longest time (seconds) for which a link admits an address."""


@frozen
class _Link:
    """A link with a hashed token: admits for ``seconds``, works until ``expires`` (monotonic seconds)."""

    hashed: bytes
    seconds: float
    expires: float


class AdmitLinks:
    """Links that once admit an address to the SIP ports."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._links: list[_Link] = []

    def make(self, seconds: float, valid: float) -> Secret:
        """Make a link that admits for ``seconds``, usable for ``valid`` seconds; return its token.

        Raise ControlError if there are too many links.
        """
        now = self._clock.mono()
        self._links = [one for one in self._links if one.expires > now]
        if len(self._links) >= MOST_LINKS:
            raise ControlError(f"{MOST_LINKS} links are open; fix: wait until one is used or expires")
        token = Secret(secrets.token_urlsafe(32))
        self._links.append(_Link(_hash(token), seconds, now + valid))
        return token

    @contextmanager
    def using(self, token: Secret) -> Iterator[float]:
        """Yield the seconds that the link with this token admits, and use up the link after the block.

        If the block raises an exception, the link is not used up. Raise ControlError for an invalid token.
        The comparison takes the same time for each token.
        """
        hashed, now = _hash(token), self._clock.mono()
        found = [one for one in self._links if compare_digest(one.hashed, hashed)]
        if not found or found[0].expires <= now:
            raise ControlError("this link is not valid: it works once, and only for some time")
        yield found[0].seconds
        self._links.remove(found[0])


def _hash(token: Secret) -> bytes:
    """Return the hash of a token. It has 256 random bits, so the hash needs no salt."""
    return sha256(token.reveal().encode("utf-8", "replace")).digest()
