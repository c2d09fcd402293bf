"""The lengths of a jail's first and repeated bans, converted from fail2ban's formulas to ringfence's list.

In fail2ban, the length of the first ban is ``bantime``. With ``bantime.increment``, the length after N
earlier bans is ``bantime`` times a multiplier or a formula of N, at most ``bantime.maxtime``
(``Jail.setBanTimeExtra``). ringfence has a list of lengths, and remembers earlier bans for a limited time.
Lengths that cannot be reached within that time are left out.
"""

from collections.abc import Callable
from math import ceil, exp

from ringfence.config.converters import MAX_DURATION
from ringfence.detect.rules import RETURN_WITHIN, RULES
from ringfence.fail2ban.jails import Jail
from ringfence.fail2ban.times import length_of, seconds_from
from ringfence.model import printable

Note = Callable[[str], None]
Growth = Callable[[int], float]
"""A function that gets the number of earlier bans.

It returns the factor by which the next ban is longer than the first.
"""

OWN = next(rule for rule in RULES if rule.name == "guess").ban
MAX_STEPS = 40
MAX_DOUBLINGS = 20
"""The number of earlier bans after which fail2ban's bans no longer grow."""

_DOUBLING = "ban.Time*(1<<(ban.Countifban.Count<20else20))*banFactor"
_EXPONENTIAL = "ban.Time*math.exp(float(ban.Count+1)*banFactor)/math.exp(1*banFactor)"


def ladder_of(jail: Jail, note: Note) -> tuple[float, ...]:
    """Return the lengths of a jail's first and repeated bans in seconds.

    Return () if ringfence's default lengths apply. ``note`` is called with a text for each difference from
    fail2ban, and for each value that cannot be converted.
    """
    text = jail.options.get("bantime", "").strip()
    if not text:
        note("bantime: no jail sets it; ringfence's default lengths apply")
        return ()
    try:
        first = seconds_from(text)
    except ValueError as error:
        note(f"bantime {printable(text)[:100]}: {error}; ringfence's default lengths apply")
        return ()
    if first < 0:
        note("bantime below 0 is permanent: every ban of ringfence has an end, and this is the longest")
        return (MAX_DURATION,)
    if not 0 < first <= MAX_DURATION:
        note(f"bantime {printable(text)[:100]}: must be above 0 and at most ten years")
    first = _within(first)
    if jail.options.get("bantime.increment", "").lower() not in {"1", "on", "true", "yes"}:
        note(
            "every ban is as long as the first, as in fail2ban; ringfence's default lengths grow with "
            f"each repeat ban: {', '.join(map(length_of, OWN))}"
        )
        return (first,)
    try:
        return _steps(first, jail, note)
    except ValueError as error:
        note(f"bantime.increment: {error}; ringfence's default lengths follow the first")
        return (first, *(step for step in OWN if step > first))


def _steps(first: float, jail: Jail, note: Note) -> tuple[float, ...]:
    growth, last = _growth(jail)
    top = _number(jail, "bantime.maxtime", MAX_DURATION)
    steps = [first]
    for returns in range(1, last + 1):
        if sum(steps) >= RETURN_WITHIN:
            note(
                "longer bans are not reached: earlier bans are remembered for "
                f"{RETURN_WITHIN / 86_400:.0f} days"
            )
            break
        longer = _within(min(max(first, first * growth(returns)), top))
        # fail2ban never makes a ban shorter than bantime.
        steps.append(max(first, longer))
    while len(steps) > 1 and steps[-1] == steps[-2]:  # the last length applies to all further bans
        steps.pop()
    return tuple(steps)


def _growth(jail: Jail) -> tuple[Growth, int]:
    """Return the growth of a jail's bans, and the number of earlier bans after which they stop growing.

    Raise ValueError if a value is invalid, or if the formula is not one of fail2ban's own.
    """
    factor = _number(jail, "bantime.factor", 1.0)
    if text := jail.options.get("bantime.multipliers", "").strip():
        try:
            multipliers = [int(word) for word in text.split()]
        except ValueError:
            raise ValueError(f"multipliers {printable(text)[:100]} are not whole numbers") from None
        if max(map(abs, multipliers), default=0) > MAX_DURATION:
            raise ValueError("multipliers are too large")
        return lambda returns: multipliers[returns] * factor, min(len(multipliers) - 1, MAX_STEPS)
    formula = "".join(jail.options.get("bantime.formula", "").split())
    if formula in {"", _DOUBLING}:
        return lambda returns: 2.0**returns * factor, MAX_DOUBLINGS
    if formula == _EXPONENTIAL:
        return lambda returns: exp(min(returns * factor, 100.0)), MAX_STEPS
    raise ValueError("a formula is not evaluated")


def _number(jail: Jail, option: str, default: float) -> float:
    text = jail.options.get(option, "").strip()
    try:
        return seconds_from(text) if text else default
    except ValueError as error:
        raise ValueError(f"{option} {printable(text)[:100]}: {error}") from None


def _within(seconds: float) -> float:
    return float(min(max(1, ceil(min(seconds, MAX_DURATION))), MAX_DURATION))
