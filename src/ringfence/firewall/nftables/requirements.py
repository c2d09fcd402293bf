"""Checks whether the kernel and ``nft`` support the rules of nftables, before anything is changed.

Version numbers would mislead, because distributions add features to older kernels. So ringfence tries the
rules: ``nft --check`` makes the kernel examine a whole transaction, and then discards it. The transaction
makes a table of another name, so the contents of our table do not matter. docs/firewall.md names the
versions.
"""

from collections.abc import Iterator
from functools import partial

from attrs import evolve

from ringfence.errors import FirewallError
from ringfence.firewall.contract import FirewallPlan, LimitMode, Requirement
from ringfence.firewall.nftables.ruleset import default_ban_sets, ruleset, ruleset_text
from ringfence.firewall.nftables.tool import run_nft
from ringfence.firewall.requirements import check_requirement

LIMITER_FIX = "fix: `modprobe nft_limit nft_fib_inet`"
LOG_FIX = "fix: `modprobe nft_log nfnetlink_log nft_fib_inet`"
_TABLE = "ringfence_check"
_BANS = "sets and rules of nftables"
_BANS_FIX = 'fix: Linux 5.7 and nft 0.9.5 or later, or `backend = "ipset"` in [firewall]'
_LOG = "the log rules for the wire"
_LIMITS = "the limiter"
_NO_INNER = (
    "over TCP only behind headers of 20 and 32 bytes, since this kernel or nft has no `@ih` (Linux 5.16, nft "
    "1.0.1)"
)


def variants(plan: FirewallPlan) -> Iterator[tuple[FirewallPlan, bool, bool, bool]]:
    """Yield the plans to try until the kernel accepts one: the whole plan, then plans with fewer features.

    Each item has four values: the plan; whether its rules use ``@ih`` (``ruleset.py``); whether the log
    rules were left out; and whether the limiter and the ration were left out.
    """
    logging, limiting = plan.log_group is not None, plan.limits
    rationing = plan.ration.mode is not LimitMode.OFF
    yield plan, True, False, False
    if logging or rationing:
        yield plan, False, False, False
    if logging:
        for inner in (True, False) if rationing else (True,):
            yield evolve(plan, log_group=None), inner, True, False
    if limiting:
        for inner in (True, False) if logging else (True,):
            yield plan.without_limits(), inner, False, True
    if logging and limiting:
        yield evolve(plan.without_limits(), log_group=None), True, True, True


def rule_requirements(tool: str, plan: FirewallPlan) -> list[Requirement]:
    """Return what the rules of ``plan`` need: support for bans, for the log rules, for limiter and ration.

    Each has a problem if the kernel or ``nft`` (its path is ``tool``) refuses the rules. Takes some 20 ms and
    changes nothing.
    """
    bans = check_requirement(_BANS, partial(_try, tool, evolve(plan.without_limits(), log_group=None)))
    if bans.problem is not None:
        return [evolve(bans, problem=f"{bans.problem}; {_BANS_FIX}")]
    requirements = [bans]
    if plan.log_group is not None:
        requirements.append(_log_rules(tool, plan.without_limits()))
    if plan.limits:
        quiet = evolve(plan, log_group=None)
        limiter = check_requirement(_LIMITS, partial(_try, tool, quiet))
        if limiter.problem is not None:
            limiter = check_requirement(_LIMITS, partial(_try, tool, quiet, inner=False))
        requirements.append(_optional(limiter, LIMITER_FIX))
    return requirements


def _log_rules(tool: str, plan: FirewallPlan) -> Requirement:
    if check_requirement(_LOG, partial(_try, tool, plan)).problem is None:
        return Requirement(_LOG)
    without = check_requirement(_LOG, partial(_try, tool, plan, inner=False))
    return _optional(without, LOG_FIX) if without.problem is not None else evolve(without, note=_NO_INNER)


def _optional(requirement: Requirement, fix: str) -> Requirement:
    return (
        requirement
        if requirement.problem is None
        else evolve(requirement, problem=f"{requirement.problem}; {fix}", optional=True)
    )


def _try(tool: str, plan: FirewallPlan, *, inner: bool = True) -> None:
    """Raise FirewallError if the kernel or the tool refuses the rules of ``plan``.

    ``inner``: the rules use ``@ih``, the data after the TCP header (``ruleset.py``).
    """
    try:
        run_nft(tool, ruleset_text(ruleset(plan, default_ban_sets(), inner=inner), table=_TABLE), check=True)
    except FirewallError as error:
        raise FirewallError(f"refused: {error}") from error
