"""How long a jail's bans are, the first and those on return: from fail2ban's formulas to a list of lengths.

fail2ban: the first ban is ``bantime``; with ``bantime.increment`` the one after N others is ``bantime`` times
a multiplier or a formula of N, at most ``bantime.maxtime`` (``Jail.setBanTimeExtra``). ringfence has a list,
and remembers returns for a time; what could never be reached within it is left out.
"""

from collections.abc import Callable
from math import ceil, exp

from ringfence.detect.rules import RETURN_WITHIN, RULES
from ringfence.fail2ban.jails import Jail
from ringfence.fail2ban.times import length_of, seconds_from
from ringfence.model import printable
from ringfence.values import MAX_DURATION

Say = Callable[[str], None]
Growth = Callable[[int], float]
"""From how many bans there were to how much longer the next is."""

OWN = next(rule for rule in RULES if rule.name == "guess").ban
MAX_STEPS = 40
MAX_DOUBLINGS = 20
"""After so many returns fail2ban's ban grows no longer."""

_DOUBLING = "ban.Time*(1<<(ban.Countifban.Count<20else20))*banFactor"
_EXPONENTIAL = "ban.Time*math.exp(float(ban.Count+1)*banFactor)/math.exp(1*banFactor)"


def ladder_of(jail: Jail, say: Say) -> tuple[float, ...]:
    """Give the lengths of a jail's bans in seconds, none where it has none; what differs is said."""
    text = jail.options.get("bantime", "").strip()
    if not text:
        say("bantime: no jail says it; ringfence's own lengths hold")
        return ()
    try:
        first = seconds_from(text)
    except ValueError as error:
        say(f"bantime {printable(text)[:100]}: {error}; ringfence's own lengths hold")
        return ()
    if first < 0:
        say("bantime below 0 is for ever: every ban of ringfence's has an end, and this is the latest")
        return (MAX_DURATION,)
    if not 0 < first <= MAX_DURATION:
        say(f"bantime {printable(text)[:100]}: must be above 0 and at most ten years")
    first = _within(first)
    if jail.options.get("bantime.increment", "").lower() not in {"1", "on", "true", "yes"}:
        say(
            "every ban is as long as the first, as in fail2ban; ringfence's own grow on return: "
            f"{', '.join(map(length_of, OWN))}"
        )
        return (first,)
    try:
        return _steps(first, jail, say)
    except ValueError as error:
        say(f"bantime.increment: {error}; ringfence's own lengths follow the first")
        return (first, *(step for step in OWN if step > first))


def _steps(first: float, jail: Jail, say: Say) -> tuple[float, ...]:
    growth, last = _growth(jail)
    top = _number(jail, "bantime.maxtime", MAX_DURATION)
    steps = [first]
    for returns in range(1, last + 1):
        if sum(steps) >= RETURN_WITHIN:
            say(f"longer bans are not reached: returns are remembered for {RETURN_WITHIN / 86_400:.0f} days")
            break
        longer = _within(min(max(first, first * growth(returns)), top))
        # fail2ban never makes a ban shorter than bantime.
        steps.append(max(first, longer))
    while len(steps) > 1 and steps[-1] == steps[-2]:  # the last length stays by itself
        steps.pop()
    return tuple(steps)


def _growth(jail: Jail) -> tuple[Growth, int]:
    """Give how bans grow, and after how many they grow no longer."""
    factor = _number(jail, "bantime.factor", 1.0)
    if text := jail.options.get("bantime.multipliers", "").strip():
        try:
            multipliers = [int(word) for word in text.split()]
        except ValueError:
            raise ValueError(f"multipliers {printable(text)[:100]} are no whole numbers") from None
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
