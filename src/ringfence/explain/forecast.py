"""Sentences about an address: why it is banned or exempt, what would end that, and what would cause a ban.

In this module a *full* ban drops all packets of the address (``Scope.FULL``). A *claim* is an attempt whose
address is not proven: its sender may be another one.
"""

from collections.abc import Iterator

from ringfence.clock import format_duration
from ringfence.detect.judgement import Count
from ringfence.detect.rules import By, Of, Rule
from ringfence.explain.facts import ActiveBan, AddressVerdict, NetworkFacts
from ringfence.lists.compose import Holder
from ringfence.lists.entries import COMMAND, CONFIGURATION
from ringfence.model import AttemptKind, FriendReason, ListKind, Scope, format_network, printable, rfc3339

_MAX_RULES = 3
"""The maximum number of rules in a forecast.

These are the rule nearest to a ban, and other rules that have at least half of the attempts for a ban.
"""
_NARROWED = {
    Scope.SIP: " from the SIP ports",
    Scope.SIP_UDP: " from the SIP ports by UDP",
    Scope.SIP_TCP: " from the SIP ports by TCP",
}
_NARROW = _NARROWED[Scope.SIP_UDP]

_NOUNS = {
    AttemptKind.GUESS: "guess",
    AttemptKind.PROBE: "call of an extension that does not exist",
    AttemptKind.MANAGER: "manager login",
    AttemptKind.FLOOD: "second over the limit",
}
_PLURALS = {
    AttemptKind.GUESS: "guesses",
    AttemptKind.PROBE: "calls of extensions that do not exist",
    AttemptKind.MANAGER: "manager logins",
    AttemptKind.FLOOD: "seconds over the limit",
}


def forecast(known: NetworkFacts) -> list[str]:
    """Return sentences: why the address is banned or exempt, and what would end that or cause a ban."""
    return list(_sentences(known))


def _sentences(known: NetworkFacts) -> Iterator[str]:
    verdict = known.verdict
    if verdict is AddressVerdict.OFF:
        yield "nothing is dropped until: ringfence on"
    if verdict is AddressVerdict.ALLOWED:
        yield from (_allowed(holder) for holder in known.on(ListKind.ALLOW))
        return
    if verdict is AddressVerdict.PROTECTED:
        yield _protected(known)
        return
    full = any(one.scope is Scope.FULL for one in known.running)
    for one in known.running:
        if one.scope is Scope.FULL or not full:  # beside a full ban, other bans change nothing
            yield _ends(known, one)
    denied = known.denied
    yield from (_denied(known, holder) for holder in denied)
    yield from (_passed(holder) for holder in known.on(ListKind.DENY) if holder not in denied)
    if denied:  # no packet arrives, so nothing is counted
        return
    if known.live:
        yield from _comes_next(known)
    else:
        yield "only the daemon knows how near a ban it is; fix: systemctl start ringfence"


def _allowed(holder: Holder) -> str:
    return f"nothing bans it: the allow list contains {_entry(holder)}; to end that, {_removal(holder)}"


def _denied(known: NetworkFacts, holder: Holder) -> str:
    own = format_network(known.network)
    return (
        f"dropped permanently: the deny list contains {_entry(holder)}; to end that, {_removal(holder)}, or "
        f"for it alone: ringfence allow add {own}"
    )


def _passed(holder: Holder) -> str:
    return f"the deny list contains {_entry(holder)}, but friends pass what is imported or found by country"


def _protected(known: NetworkFacts) -> str:
    each = []
    for kept, why in known.reasons.items():
        inside = (
            f"{format_network(kept)} in it"
            if kept.prefixlen > known.network.prefixlen
            else format_network(kept)
        )
        each.append(f"{'it' if kept == known.network else inside} is {why}")
    own = format_network(known.network)
    return f"no rule bans it: {' and '.join(each)}; by hand: ringfence ban --force {own}"


def _entry(holder: Holder) -> str:
    entry = holder.entry
    leads = format_network(holder.network) != entry.value
    text = printable(entry.value) + (f" ({format_network(holder.network)})" if leads else "")
    text += f", {printable(entry.note)}" if entry.note else ""
    if entry.origin not in {COMMAND, CONFIGURATION}:
        text += f", imported from {printable(entry.origin)}"
    return text + (f", until {rfc3339(entry.until)}" if entry.until is not None else "")


def _removal(holder: Holder) -> str:
    entry = holder.entry
    if entry.origin == CONFIGURATION:
        return f"remove it from [{entry.kind}] in the configuration, and reload"
    return f"ringfence {entry.kind} remove {printable(entry.value)}"


# -- bans that run ----------------------------------------------------------------------------------------


def _ends(known: NetworkFacts, one: ActiveBan) -> str:
    own = format_network(known.network)
    ban = (
        "the ban"
        if one.network in (known.network, known.subject)
        else f"the ban of {format_network(one.network)}"
    )
    ban += _NARROWED.get(one.scope, "")
    if one.ban is None and one.element is None:
        return f"{ban} ends by: ringfence unban {own}"
    end = one.ban.expires if one.ban is not None else known.now + _left(one)
    if end == float("inf"):
        return f"{ban} has no end; it ends by: ringfence unban {own}"
    left = format_duration(max(0.0, end - known.now))
    missing = "" if one.element is not None else ", though it is missing in the kernel now"
    moment = rfc3339(end).replace("T", " ")[:16]
    return f"{ban} ends by itself in {left}, at {moment} UTC{missing}; now by: ringfence unban {own}"


def _left(one: ActiveBan) -> float:
    return one.element.timeout if one.element is not None else 0.0


# -- attempts that would lead to a ban --------------------------------------------------------------------


def _comes_next(known: NetworkFacts) -> Iterator[str]:
    story = known.story
    if story is None:
        if known.contains_exempt:
            yield "it contains a friend or an exempt address, so no rule bans it as a whole"
        elif not known.running:
            yield "no rule counts a whole network; see: ringfence why ADDRESS"
        return
    counts = [count for count in story.counts if _can_be_full(count)]
    if story.outage_mode and known.friends:
        yield "a friend, and outage mode is active: no rule bans it until that ends"
        return
    if any(friend.reason is FriendReason.TRUNK for friend in known.friends):
        yield "a trunk: no rule bans it; guesses from there raise alarms"
    elif known.friends and any(friend.proven for friend in known.friends):
        yield _friend(counts)
    elif known.friends:
        yield (
            "a friend without proof: attempts that only claim its address ban nothing, and proven ones count "
            "as for any address"
        )
    else:
        yield from _stranger(known, counts)


def _can_be_full(count: Count) -> bool:
    """Whether the rule of ``count`` can lead to a ban of this sender.

    It cannot if ``count.number`` is 0, because then the rule does not apply to the sender. It also cannot if
    it counts only attempts on listed accounts, and the list is empty.
    """
    return bool(count.number) and count.rule.accounts != frozenset()


def _friend(counts: list[Count]) -> str:
    each = []
    for count in counts:
        if count.rule.by is not By.SUBJECT:
            continue
        what = (
            "accounts that never worked there"
            if count.rule.of is Of.UNKNOWN_ACCOUNTS
            else _plural(count.rule)
        )
        so_far = f" ({count.have} so far)" if count.have else ""
        each.append(f"{count.number} {what} within {format_duration(count.within)}{so_far}{_other(count)}")
    if not each:
        return "a friend: no rule bans it"
    return (
        f"a friend: {', or '.join(each)} are a ban; an account that works or worked there only raises alarms"
    )


def _other(count: Count) -> str:
    """Return the rule's other limit for friends as text (``or 30 within 1d``); "" if it has only one.

    ``count`` is about one of the limits.
    """
    others = [one for one in count.rule.for_friends if one[1] != count.within]
    return "".join(f" or {number} within {format_duration(window)}" for number, window in others)


def _stranger(known: NetworkFacts, counts: list[Count]) -> Iterator[str]:
    if any(one.scope in {Scope.FULL, Scope.SIP} for one in known.running):
        yield from _next(known, counts)
        return
    off = By.PREFIX if known.contains_exempt else None
    begun = [count for count in counts if count.have and count.rule.by is not off]
    begun.sort(key=lambda count: -count.have / count.number)
    for count in begun[:_MAX_RULES]:
        if count is begun[0] or 2 * count.have >= count.number:
            yield _more(known, count)
    if not begun:
        usual = next((count for count in counts if count.rule.by is By.SUBJECT), None)
        if usual is not None:
            yield _more(known, usual)


def _next(known: NetworkFacts, counts: list[Count]) -> Iterator[str]:
    """Yield a sentence: how many attempts lead to another ban after the present one has ended.

    The present ban blocks at least all SIP ports, so no attempt by SIP arrives while it lasts. After the ban,
    a rule counts from 0 again. Yield nothing if no rule applies.
    """
    by = {one.ban.rule for one in known.running if one.ban is not None}
    mine = [
        count for count in counts if count.rule.by is By.SUBJECT and count.rule.scope is not Scope.SIP_UDP
    ]
    count = next((count for count in mine if count.rule.name in by), mine[0] if mine else None)
    if count is not None:
        what, rule = _number(count.number, "", count.rule), count.rule
        window, length = format_duration(rule.window), format_duration(rule.ban_for(known.offences))
        ban = f"a ban of {length}{_NARROWED.get(rule.scope, '')}"
        yield f"after that, {what} within {window} {_verb(count.number)} {ban}"


def _more(known: NetworkFacts, count: Count) -> str:
    rule, more = count.rule, "more " if count.have else ""
    within = count.rule.window if count.ends is None else max(0.0, count.ends + known.ahead - known.now)
    time = format_duration(within)
    length = format_duration(rule.ban_for(known.offences if rule.by is not By.PREFIX else 0))
    narrowed = _NARROWED.get(rule.scope, "")
    if rule.scope is Scope.SIP_UDP:
        number = max(1, rule.claimed_for(count.number) - count.have)
        what = _number(number, more, rule)
        return f"{what} within {time} {_verb(number)} a ban of {length}{narrowed} ({rule.name})"
    proven = max(1, count.number - count.have, rule.proven_for(count.number) - count.proven)
    if rule.by is By.PREFIX:
        return (
            f"{_number(proven, more, rule)} of its network within {time}, from at least {rule.addresses} "
            f"addresses, {_verb(proven)} a ban of all of it{narrowed} for {length} ({rule.name})"
        )
    text = (
        f"{_number(proven, more + 'proven ', rule)} within {time} {_verb(proven)} a ban of {length}{narrowed}"
    )
    claims = rule.claimed_for(count.number) - count.have
    if claims > 0 and not known.running:
        verb, least = "claims" if claims == 1 else "claim", format_duration(known.claimed.ban[0])
        text += f"; {claims} that only {verb} the address {_verb(claims)} one of {least}{_NARROW}"
    return f"{text} ({rule.name})"


def _number(number: int, more: str, rule: Rule) -> str:
    return f"{number} {more}{_one(rule) if number == 1 else _plural(rule)}"


def _verb(number: int) -> str:
    return "is" if number == 1 else "are"


def _plural(rule: Rule) -> str:
    if rule.of is Of.UNKNOWN_ACCOUNTS:
        return "accounts that do not exist"
    return _PLURALS[next(iter(rule.counts))] if len(rule.counts) == 1 else "attempts"


def _one(rule: Rule) -> str:
    if rule.of is Of.UNKNOWN_ACCOUNTS:
        return "account that does not exist"
    return _NOUNS[next(iter(rule.counts))] if len(rule.counts) == 1 else "attempt"
