"""What would have to happen for a ban, or for its end: in sentences, from what is known."""

from collections.abc import Iterator

from ringfence.detect.judge import Count
from ringfence.detect.rules import By, Of, Rule
from ringfence.lists.entries import COMMAND, CONFIGURATION
from ringfence.lists.holding import Holder
from ringfence.model import AttemptKind, Scope, Side, printable, rfc3339, shown
from ringfence.spans import span
from ringfence.why.known import Known, Running, Verdict

_MOST = 3  # rules that are halfway there
_NARROW = " from the SIP ports by UDP"

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


def outlook(known: Known) -> list[str]:
    """Say what keeps it out or in, what ends that, and what comes next."""
    return list(_sentences(known))


def _sentences(known: Known) -> Iterator[str]:
    verdict = known.verdict
    if verdict is Verdict.OFF:
        yield "nothing is dropped now, whoever it is, until: ringfence on"
    if verdict is Verdict.ALLOWED:
        yield from (_allowed(holder) for holder in known.on(Side.ALLOW))
        return
    if verdict is Verdict.PROTECTED:
        yield _protected(known)
        return
    full = any(one.scope is Scope.FULL for one in known.running)
    for one in known.running:
        if one.scope is Scope.FULL or not full:  # what is let in is let in by all doors
            yield _ends(known, one)
    denied = known.on(Side.DENY)
    yield from (_denied(known, holder) for holder in denied)
    if denied:  # nothing arrives that could be counted
        return
    if known.live:
        yield from _comes_next(known)
    else:
        yield "how near a ban it is knows the daemon alone: systemctl start ringfence"


def _allowed(holder: Holder) -> str:
    return f"nothing bans it: the allow list holds {_entry(holder)}; to end that, {_removal(holder)}"


def _denied(known: Known, holder: Holder) -> str:
    own = shown(known.network)
    return (
        f"dropped without an end: the deny list holds {_entry(holder)}; to end that, {_removal(holder)}, or "
        f"for it alone: ringfence allow add {own}"
    )


def _protected(known: Known) -> str:
    each = []
    for kept, why in known.reasons.items():
        inside = f"{shown(kept)} in it" if kept.prefixlen > known.network.prefixlen else shown(kept)
        each.append(f"{'it' if kept == known.network else inside} is {why}")
    return f"no rule bans it: {' and '.join(each)}; by hand: ringfence ban --force {shown(known.network)}"


def _entry(holder: Holder) -> str:
    entry = holder.entry
    leads = shown(holder.network) != entry.what
    text = printable(entry.what) + (f" ({shown(holder.network)})" if leads else "")
    text += f", {printable(entry.note)}" if entry.note else ""
    if entry.origin not in {COMMAND, CONFIGURATION}:
        text += f", imported from {printable(entry.origin)}"
    return text + (f", until {rfc3339(entry.until)}" if entry.until is not None else "")


def _removal(holder: Holder) -> str:
    entry = holder.entry
    if entry.origin == CONFIGURATION:
        return f"take it out of [{entry.side}] in the configuration, and reload"
    return f"ringfence {entry.side} remove {printable(entry.what)}"


# -- bans that run ----------------------------------------------------------------------------------------


def _ends(known: Known, one: Running) -> str:
    own = shown(known.network)
    whose = "the ban" if one.network in (known.network, known.subject) else f"the ban of {shown(one.network)}"
    if one.scope is not Scope.FULL:
        whose += _NARROW
    if one.ban is None and one.element is None:
        return f"{whose} ends by: ringfence unban {own}"
    end = one.ban.expires if one.ban is not None else known.now + _left(one)
    if end == float("inf"):
        return f"{whose} has no end; it ends by: ringfence unban {own}"
    left = span(max(0.0, end - known.now))
    missing = "" if one.element is not None else ", though the kernel does not have it now"
    moment = rfc3339(end).replace("T", " ")[:16]
    return f"{whose} ends by itself in {left}, at {moment} UTC{missing}; now by: ringfence unban {own}"


def _left(one: Running) -> float:
    return one.element.timeout if one.element is not None else 0.0


# -- what rules wait for ----------------------------------------------------------------------------------


def _comes_next(known: Known) -> Iterator[str]:
    story = known.story
    if story is None:
        if known.spared:
            yield "a friend lives in it, or who is never banned: so no rule bans it as a whole"
        elif not known.running:
            yield "no rule counts it as a whole: ask for one of its addresses"
        return
    counts = [count for count in story.counts if _can_be_full(count)]
    if story.braked and known.friends:
        yield "a friend, and phones fail everywhere: until that is over nothing bans it"
        return
    if known.friends and any(friend.proven for friend in known.friends):
        yield _friend(counts)
    elif known.friends:
        yield (
            "a friend by a phone's word alone: what only claims to come from there bans nobody, and what is "
            "proven to is judged as a stranger's"
        )
    else:
        yield from _stranger(known, counts)


def _can_be_full(count: Count) -> bool:
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
        each.append(f"{count.number} {what} within {span(count.rule.window)}{so_far}")
    if not each:
        return "a friend: no rule bans it"
    return f"a friend: {', or '.join(each)} are a ban; a phone with a wrong password is told of, not banned"


def _stranger(known: Known, counts: list[Count]) -> Iterator[str]:
    if any(one.scope is Scope.FULL for one in known.running):
        yield from _next(known, counts)
        return
    begun = [count for count in counts if count.have and not (count.rule.by is By.PREFIX and known.spared)]
    begun.sort(key=lambda count: -count.have / count.number)
    for count in begun[:_MOST]:
        if count is begun[0] or 2 * count.have >= count.number:
            yield _more(known, count)
    if not begun:
        usual = next((count for count in counts if count.rule.by is By.SUBJECT), None)
        if usual is not None:
            yield _more(known, usual)


def _next(known: Known, counts: list[Count]) -> Iterator[str]:
    """Say what follows a full ban: while it runs nothing is counted."""
    by = {one.ban.rule for one in known.running if one.ban is not None}
    mine = [count for count in counts if count.rule.by is By.SUBJECT and count.rule.scope is Scope.FULL]
    count = next((count for count in mine if count.rule.name in by), mine[0] if mine else None)
    if count is not None:
        what, rule = _number(count.number, "", count.rule), count.rule
        length = span(rule.ban_for(known.offences))
        yield f"after that, {what} within {span(rule.window)} {_are(count.number)} a ban of {length}"


def _more(known: Known, count: Count) -> str:
    rule, more = count.rule, "more " if count.have else ""
    within = count.rule.window if count.ends is None else max(0.0, count.ends + known.ahead - known.now)
    time = span(within)
    length = span(rule.ban_for(known.offences if rule.by is not By.PREFIX else 0))
    if rule.scope is Scope.SIP_UDP:
        number = max(1, rule.claimed_for(count.number) - count.have)
        what = _number(number, more, rule)
        return f"{what} within {time} {_are(number)} a ban of {length}{_NARROW} ({rule.name})"
    proven = max(1, count.number - count.have, rule.proven_for(count.number) - count.proven)
    if rule.by is By.PREFIX:
        return (
            f"{_number(proven, more, rule)} of its network within {time}, from at least {rule.addresses} "
            f"addresses, {_are(proven)} a ban of all of it for {length} ({rule.name})"
        )
    text = f"{_number(proven, more + 'proven ', rule)} within {time} {_are(proven)} a ban of {length}"
    claims = rule.claimed_for(count.number) - count.have
    if claims > 0 and not known.running:
        verb, least = "claims" if claims == 1 else "claim", span(known.claimed.ban[0])
        text += f"; {claims} that only {verb} the address {_are(claims)} one of {least}{_NARROW}"
    return f"{text} ({rule.name})"


def _number(number: int, more: str, rule: Rule) -> str:
    return f"{number} {more}{_one(rule) if number == 1 else _plural(rule)}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _plural(rule: Rule) -> str:
    if rule.of is Of.UNKNOWN_ACCOUNTS:
        return "accounts that do not exist"
    return _PLURALS[next(iter(rule.counts))] if len(rule.counts) == 1 else "attempts"


def _one(rule: Rule) -> str:
    if rule.of is Of.UNKNOWN_ACCOUNTS:
        return "account that does not exist"
    return _NOUNS[next(iter(rule.counts))] if len(rule.counts) == 1 else "attempt"
