"""The faults that the judge has found in ringfence, each as the smallest world that shows it."""

from dataclasses import dataclass

from tests.judge.asterisk import Act
from tests.judge.worlds import ATTACKERS, PHONES, TRUNK, Failure, Guards, play


@dataclass(frozen=True)
class Fault:
    """A world in which an invariant does not hold, and the sentence that states what is wrong.

    ``kind`` is the kind of action that every world with this fault has. ``rare``: worlds with this kind
    hold in general, so a random world with it is not excused.
    """

    name: str
    reason: str
    acts: tuple[Act, ...]
    kind: str
    rare: bool = False


FAULTS = (
    Fault(
        "answer-elsewhere",
        "C: a question without a guess, whose answer a Via sends elsewhere, counts as an attempt",
        (
            Act("asks elsewhere", ATTACKERS[0], other=TRUNK, wait=35.0, order=13326, late=0.5),
            Act("asks elsewhere", ATTACKERS[0], other=PHONES[0], order=51975),
        ),
        "asks elsewhere",
    ),
    Fault(
        "copied-twice",
        "C: a hidden guess whose answers the kernel copies twice counts as three attempts",
        (Act("hides", ATTACKERS[0], wait=3.0, twice=True),),
        "hides",
        rare=True,
    ),
    Fault(
        "refused-lamp",
        "C: chan_sip refuses a subscription with 403 after the right password, and it counts as an attempt",
        (Act("lamp refused", PHONES[0], wait=3.0),),
        "lamp refused",
    ),
    Fault(
        "login-counted",
        "C: a phone with the right password makes an attempt, if its challenge is read after AMI's events",
        (
            Act("logs in", PHONES[0], wait=3.0, order=31256),
            Act("logs in", PHONES[0], wait=3.0, order=9195),
        ),
        "logs in",
        rare=True,
    ),
    Fault(
        "blamed-and-forged",
        "C: a line that blames an address counts for it too, once another sender forges a guess from there",
        (
            Act("hides and blames", ATTACKERS[1], other=PHONES[1], wait=35.0, order=12004, late=2.0),
            Act("forges a guess", ATTACKERS[0], other=PHONES[1], account="900", order=20832, late=0.5),
            Act("logs in", PHONES[0], wait=0.01, order=61248, late=0.5),
        ),
        "hides and blames",
        rare=True,
    ),
    Fault(
        "friend-keeps-claimed-ban",
        "P: a ban on forged evidence stays when the phone at this address logs in by TCP",
        (
            Act("forges a guess", ATTACKERS[0], other=PHONES[1], order=48656, late=2.0),
            Act("forges a guess", ATTACKERS[0], other=PHONES[1], wait=35.0, order=31437, late=0.5),
            Act("forges a guess", ATTACKERS[0], other=PHONES[1], wait=35.0, order=26741, late=2.0),
            Act("forges a guess", ATTACKERS[0], other=PHONES[1], wait=0.01, order=18949, late=0.5),
            Act("forges a guess", ATTACKERS[0], other=PHONES[1], wait=0.01, order=65287),
            Act("logs in", PHONES[1], transport="TCP", order=53422, late=2.0),
        ),
        "forges a guess",
        rare=True,
    ),
    Fault(
        "hidden-by-tcp-free",
        "C: a sender of hidden guesses by TCP loses only UDP, if notices are read before the answers",
        (
            Act("hides", ATTACKERS[0], transport="TCP", wait=35.0, order=64888),
            Act("logs in", PHONES[0], transport="TCP", wait=35.0, order=11447, late=2.0),
            Act("hides", ATTACKERS[0], transport="TCP", order=4957),
            Act("hides", ATTACKERS[0], transport="TCP", wait=0.01, order=24363, late=2.0),
            Act("hides", ATTACKERS[0], transport="TCP", wait=0.01, order=64942),
            Act("hides", ATTACKERS[0], transport="TCP", wait=0.01, order=52337),
        ),
        "hides",
        rare=True,
    ),
)


_KINDS = frozenset(fault.kind for fault in FAULTS if not fault.rare)


def unexplained(failure: Failure | None, guards: Guards) -> Failure | None:
    """Return a failure that remains without the kinds of actions that the known faults have, or None."""
    if failure is None:
        return None
    others = tuple(act for act in failure.acts if act.kind not in _KINDS)
    return failure if len(others) == len(failure.acts) else play(others, guards)
