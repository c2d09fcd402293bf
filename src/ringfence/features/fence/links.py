"""Links for people, each of which admits the address that opens it to the fence for a time.

A link admits one address at a time, and permits nothing else. It works once, or it is the lasting link of an
account. The live page passes on the link's token and the address that it came from. Only hashes of tokens are
kept. Those of lasting links are in the database. The others are only in memory, so a restart ends them.
"""

import json
import secrets
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from hmac import compare_digest
from typing import Any

import structlog
from attrs import asdict, evolve, frozen

from ringfence.clock import Clock
from ringfence.errors import ControlError
from ringfence.store.database import Store
from ringfence.values.secret import Secret
from ringfence.values.text import rfc3339

MOST_LINKS = 32
"""The maximum number of admission links for one use that are neither used nor expired."""
MOST_LASTING = 128
"""The maximum number of lasting links."""
MOST_VALID = 86_400.0
"""The longest time (seconds) until a link for one use expires."""
MOST_ADMITTED_FOR = 30 * 86_400.0
"""The longest time (seconds) for which a link admits an address."""
MOST_OPENINGS = 10
OPENINGS_WITHIN = 3_600.0
"""The period in seconds in which a lasting link admits at most ``MOST_OPENINGS`` times."""
_FACT = "fence.links"


@frozen
class AdmitLink:
    """A link that admits for ``seconds``. ``hashed`` is the hash of its token, in hexadecimal digits.

    The link of an ``account`` is lasting. It was made at ``made`` and last opened at ``opened`` (seconds
    since the epoch; None: never). A link without an account (``account`` is "") works once, until ``expires``
    (monotonic seconds).
    """

    hashed: str
    seconds: float
    account: str = ""
    made: float = 0.0
    opened: float | None = None
    expires: float | None = None


class AdmitLinks:
    """Links that admit an address to the SIP ports: those for one use, and those of accounts in ``store``."""

    def __init__(self, clock: Clock, store: Store) -> None:
        self._clock = clock
        self._store = store
        self._links = _parsed(store.best_effort.read(store.state.fact, None, _FACT))
        self._openings: dict[str, deque[float]] = {}  # monotonic seconds, by account
        self._log = structlog.get_logger()

    def summary(self) -> list[dict[str, Any]]:
        """Return the lasting links as JSON values, without the hashes of their tokens."""
        return [
            {
                "account": one.account,
                "seconds": one.seconds,
                "made": rfc3339(one.made),
                "opened": None if one.opened is None else rfc3339(one.opened),
            }
            for one in self._lasting()
        ]

    def make(self, seconds: float, valid: float) -> Secret:
        """Make a link that once admits for ``seconds``, usable for ``valid`` seconds; return its token.

        Raise ControlError if there are too many links.
        """
        now, lasting = self._clock.mono(), self._lasting()
        open_now = [one for one in self._links if one.expires is not None and one.expires > now]
        if len(open_now) >= MOST_LINKS:
            raise ControlError(f"{MOST_LINKS} links are open; fix: wait until one is used or expires")
        token = Secret(secrets.token_urlsafe(32))
        self._links = [*lasting, *open_now, AdmitLink(_hash(token), seconds, expires=now + valid)]
        return token

    def make_lasting(self, account: str, seconds: float) -> Secret:
        """Make the lasting link of ``account``, which admits for ``seconds`` each time; return its token.

        Raise ControlError if the account has a link, or if there are too many.
        """
        lasting = self._lasting()
        if any(one.account == account for one in lasting):
            raise ControlError(f"{account} has a link; to make another, first: ringfence fence unlink")
        if len(lasting) >= MOST_LASTING:
            raise ControlError(f"{MOST_LASTING} people have links; fix: ringfence fence unlink")
        token = Secret(secrets.token_urlsafe(32))
        self._links.append(AdmitLink(_hash(token), seconds, account, self._clock.wall()))
        self._save()
        return token

    def revoke(self, account: str) -> None:
        """Revoke the lasting link of ``account``; raise ControlError if it has none."""
        found = [one for one in self._lasting() if one.account == account]
        if not found:
            raise ControlError(f"{account} has no link; to list them: ringfence fence links")
        self._links.remove(found[0])
        self._openings.pop(account, None)
        self._save()

    @contextmanager
    def using(self, token: Secret) -> Iterator[AdmitLink]:
        """Yield the link with this token, and record its use after the block: a link for one use ends.

        If the block raises an exception, the link is not used. Raise ControlError for an invalid token, and
        for a lasting link that was opened too often. The comparison takes the same time for each token.
        """
        hashed, now = _hash(token), self._clock.mono()
        found = [one for one in self._links if compare_digest(one.hashed, hashed)]
        if not found or (found[0].expires is not None and found[0].expires <= now):
            raise ControlError("this link is not valid: it was used or revoked, or its time is over")
        [link] = found
        openings = self._openings.get(link.account, deque[float](maxlen=MOST_OPENINGS))
        if len(openings) == MOST_OPENINGS and now - openings[0] < OPENINGS_WITHIN:
            raise ControlError("this link was opened too often: wait an hour")
        yield link
        if not link.account:
            self._links.remove(link)
            return
        openings.append(now)
        self._openings[link.account] = openings
        self._links[self._links.index(link)] = evolve(link, opened=self._clock.wall())
        self._save()
        if len(openings) == MOST_OPENINGS and now - openings[0] < OPENINGS_WITHIN:
            self._log.warning("fence.link_limited", account=link.account)

    def _lasting(self) -> list[AdmitLink]:
        return [one for one in self._links if one.account]

    def _save(self) -> None:
        """Write the lasting links into the database."""
        text = json.dumps([asdict(one) for one in self._lasting()])
        self._store.best_effort.write(self._store.state.set_fact, _FACT, text, key=_FACT)


def _parsed(text: str | None) -> list[AdmitLink]:
    """Parse the recorded lasting links (JSON); return none if ``text`` is None or damaged."""
    try:
        return [AdmitLink(**one) for one in json.loads(text or "[]")]
    except (ValueError, TypeError):
        return []


def _hash(token: Secret) -> str:
    """Return the hash of a token. It has 256 random bits, so the hash needs no salt."""
    return sha256(token.reveal().encode("utf-8", "replace")).hexdigest()
