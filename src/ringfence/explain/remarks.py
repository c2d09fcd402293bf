"""Sentences about attempts that do not count in full: unconfirmed ones, and hidden ones without proof.

An *unconfirmed* attempt may name a forged address, and no other source confirms it. A *hidden* attempt is
missing in Asterisk's events and logs; only the wire (the capture of outgoing challenges) shows it.
"""

from collections import Counter
from collections.abc import Iterator

from ringfence.detect.unconfirmed import why_unconfirmed
from ringfence.explain.facts import NetworkFacts
from ringfence.model import Attempt, EventKind, Proof


def remarks(known: NetworkFacts) -> list[str]:
    """Return sentences: how many attempts do not count, or count only as claims, and why.

    An attempt is only a claim if nothing proves that its address is really that of the sender.
    """
    attempts = [outcome.attempt for outcome in known.attempts()]
    reasons = Counter(why_unconfirmed(attempt) for attempt in attempts if not attempt.trusted)
    found = [_line(number, len(attempts), why) for why, number in reasons.items()]
    return [*found, *_hidden(attempts)]


def _line(number: int, of: int, why: str) -> str:
    if number == of:
        return f"no attempt counts: {why}"
    return f"{number} of {of} attempts {'does' if number == 1 else 'do'} not count: {why}"


def _hidden(attempts: list[Attempt]) -> Iterator[str]:
    hidden = [attempt for attempt in attempts if attempt.trusted and attempt.event is EventKind.HIDDEN]
    claimed = sum(attempt.proof is Proof.CLAIMED for attempt in hidden)
    if claimed:
        yield (
            f"{claimed} of {len(attempts)} attempts are missing in Asterisk's events, and their address is "
            "not proven so far: for a minute after each, requests from there are observed, and a nonce that "
            "comes back proves the attempts of its session"
        )
