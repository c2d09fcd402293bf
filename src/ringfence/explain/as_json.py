"""The facts of an address as JSON. Scripts depend on the keys, so these are stable."""

from collections import Counter
from collections.abc import Iterator
from math import isfinite
from typing import Any

from ringfence import street
from ringfence.bans.exempt import ITSELF
from ringfence.clock import format_duration
from ringfence.detect.confirmation import why_unconfirmed
from ringfence.detect.judge import claimed_for, proven_for
from ringfence.detect.judgement import Count
from ringfence.detect.rules import By, Rule
from ringfence.explain.account import reason_of
from ringfence.explain.facts import ActiveBan, AddressVerdict, AttemptOutcome, NetworkFacts, sources_of
from ringfence.explain.groups import ALIKE, grouped
from ringfence.friends.exchange import as_json
from ringfence.lists.entries import CONFIGURATION, COUNTRY, OWN_ORIGINS
from ringfence.lists.manager import Holder
from ringfence.plurals import counted
from ringfence.store.bans import RecordedBan
from ringfence.values.attempt import Attempt, AttemptKind, Proof
from ringfence.values.ban import UNRECORDED, Scope, ban_json
from ringfence.values.entry import ListKind
from ringfence.values.event import EventKind
from ringfence.values.friend import Friend, FriendReason
from ringfence.values.network import format_network
from ringfence.values.text import printable, rfc3339

# -- sentences about an address: why it is banned or exempt, what would end that, and what would cause a ban
#
# In this module a *full* ban drops all packets of the address (``Scope.FULL``). A *claim* is an attempt
# whose address is not proven: its sender may be another one.


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
    if not denied:  # otherwise no packet arrives, so nothing is counted
        yield from _forecast(known)


def _forecast(known: NetworkFacts) -> Iterator[str]:
    """Yield sentences: what keeps a stranger from the SIP ports, or else what would lead to a ban."""
    if known.verdict is AddressVerdict.STRANGER:
        for sentences in street.functions("why", "forecast"):
            yield from sentences(known)
        if not known.gets_in:
            return
    if known.live:
        yield from _comes_next(known)
    else:
        yield "only the daemon knows how near a ban it is; fix: systemctl start ringfence"


def _allowed(holder: Holder) -> str:
    return f"nothing bans it: the allow list contains {_by_entry(holder)}; to end that, {_removal(holder)}"


def _denied(known: NetworkFacts, holder: Holder) -> str:
    own, origin = format_network(known.network), holder.entry.origin
    rest = f"; to end that, {_removal(holder)}, or for it alone: ringfence allow add {own}"
    if origin not in OWN_ORIGINS:
        what = "traffic to the SIP ports" if holder.drops is Scope.SIP else "traffic"
        return f"its new {what} is dropped: the {printable(origin)} contains {holder.entry.value}{rest}"
    return f"dropped permanently: the deny list contains {_by_entry(holder)}{rest}"


def _passed(holder: Holder) -> str:
    entry, but = holder.entry, "but friends, former friends and admitted addresses pass it"
    if entry.origin not in OWN_ORIGINS:
        return f"the {printable(entry.origin)} contains {entry.value}, {but}"
    return f"the deny list contains {_by_entry(holder)}, {but}, because it was found by its region"


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


def _by_entry(holder: Holder) -> str:
    entry = holder.entry
    leads = format_network(holder.network) != entry.value
    text = printable(entry.value) + (f" ({format_network(holder.network)})" if leads else "")
    text += f", {printable(entry.note)}" if entry.note else ""
    return text + (f", until {rfc3339(entry.until)}" if entry.until is not None else "")


def _removal(holder: Holder) -> str:
    entry = holder.entry
    if holder.removal:
        return holder.removal
    if entry.origin == CONFIGURATION:
        return f"remove it from [{entry.kind}] in the configuration, and reload"
    return f"ringfence {entry.kind} remove {printable(entry.value.removeprefix(COUNTRY))}"


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
    elif known.friends:
        yield _by_friend(counts)
    else:
        yield from _stranger(known, counts)


def _can_be_full(count: Count) -> bool:
    """Whether the rule of ``count`` can lead to a ban of this sender.

    It cannot if ``count.number`` is 0, because then the rule does not apply to the sender. It also cannot if
    it counts only attempts on listed accounts, and the list is empty.
    """
    return bool(count.number) and count.rule.accounts != frozenset()


def _by_friend(counts: list[Count]) -> str:
    each = []
    for count in counts:
        if count.rule.by is not By.SUBJECT:
            continue
        what = count.rule.of.of_friend or count.rule.several
        so_far = f" ({count.have} so far)" if count.have else ""
        each.append(
            f"{count.number} {what}{_counted(count.each)} within {format_duration(count.within)}"
            f"{so_far}{_other_limit(count)}"
        )
    if not each:
        return "a friend: no rule bans it"
    return (
        f"a friend: {', or '.join(each)} are a ban; an account that works or worked there only raises alarms"
    )


def _other_limit(count: Count) -> str:
    """Return the limits for friends of the rule of ``count``, except that of ``count`` itself, as text.

    An example is ``or 20 within 1m``; "" if the rule has only one limit.
    """
    mine = count.within, count.each
    others = [one for one in count.rule.for_friends if (one.window, one.each) != mine]
    return "".join(
        f" or {one.needed(1)}{_counted(one.each)}{_added(one.more)} within {format_duration(one.window)}"
        for one in others
    )


def _counted(each: int) -> str:
    """Return as text that at most ``each`` attempts on one account count; "" for 0 (all count)."""
    return f" (at most {each} on each account)" if each else ""


def _added(more: int) -> str:
    """Return as text that each further account raises a limit by ``more`` attempts; "" for 0."""
    return f" (and {more} for each further account)" if more else ""


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
        number = max(1, claimed_for(count.number) - count.have)
        what = _number(number, more, rule)
        return f"{what} within {time} {_verb(number)} a ban of {length}{narrowed} ({rule.name})"
    if rule.counts == {AttemptKind.PROBE}:
        number, short = max(1, count.number - count.have), format_duration(known.claimed.ban[0])
        what = f"{_number(number, more, rule)} within {time} {_verb(number)} a ban of {short}"
        return f"{what} from the SIP ports by the transport of the calls ({rule.name})"
    proven = max(1, count.number - count.have, proven_for(count.number) - count.proven)
    if rule.by is By.PREFIX:
        return (
            f"{_number(proven, more, rule)} of its network within {time}, from at least {rule.addresses} "
            f"addresses, {_verb(proven)} a ban of all of it{narrowed} for {length} ({rule.name})"
        )
    text = (
        f"{_number(proven, more + 'proven ', rule)} within {time} {_verb(proven)} a ban of {length}{narrowed}"
    )
    claims = claimed_for(count.number) - count.have
    if claims > 0 and not known.running:
        claim, lead = ("claims", "leads") if claims == 1 else ("claim", "lead")
        least = format_duration(known.claimed.ban[0])
        text += f"; {claims} that only {claim} the address {lead} to a ban of {least}{_NARROW}"
    return f"{text} ({rule.name})"


def _number(number: int, more: str, rule: Rule) -> str:
    return f"{number} {more}{rule.one if number == 1 else rule.several}"


def _verb(number: int) -> str:
    return "is" if number == 1 else "are"


# -- sentences about attempts that do not count in full: unconfirmed ones, and hidden ones without proof
#
# An *unconfirmed* attempt may name a forged address, and no other source confirms it. A *hidden* attempt is
# missing in Asterisk's events and logs; only the wire (the capture of outgoing challenges) shows it.


def remarks(known: NetworkFacts) -> list[str]:
    """Return sentences about attempts that do not count, or are not proven, and about other requests.

    An attempt is not proven if nothing shows that its address is really that of the sender.
    """
    attempts = [outcome.attempt for outcome in known.attempts()]
    reasons = Counter(why_unconfirmed(attempt) for attempt in attempts if not attempt.trusted)
    found = [_line(number, len(attempts), why) for why, number in reasons.items()]
    pings = known.story.pinging if known.story is not None else ()
    return [*found, *_hidden(attempts), *_of_honest_hosts(attempts), *(one.sentence for one in pings)]


def _of_honest_hosts(attempts: list[Attempt]) -> Iterator[str]:
    """Yield sentences about attempts of browsers for web pages, and about attempts without credentials."""
    bare = sum(not one.credentials and one.trusted for one in attempts)
    pages = sum(one.page and one.trusted for one in attempts)
    of = counted(len(attempts), "attempt")
    if pages:
        yield (
            f"{pages} of {of} came from a browser, by WebSocket, for a web page of another site: its user may"
            " not know it, so at most the SIP ports by TCP are closed"
        )
    if bare:
        yield (
            f"{bare} of {of} had no credentials, so a short ban of their transport follows at most; "
            "fix: if you know the sender, add its address to an identify in pjsip.conf, or allow it"
        )


def _line(number: int, of: int, why: str) -> str:
    if number == of:
        return f"no attempt counts: {why}"
    return f"{number} of {counted(of, 'attempt')} {'does' if number == 1 else 'do'} not count: {why}"


def _hidden(attempts: list[Attempt]) -> Iterator[str]:
    hidden = [attempt for attempt in attempts if attempt.trusted and attempt.event is EventKind.HIDDEN]
    claimed = sum(attempt.proof is Proof.CLAIMED for attempt in hidden)
    if claimed:
        yield (
            f"{claimed} of {counted(len(attempts), 'attempt is', 'attempts are')} missing in "
            "Asterisk's events, and their address is not proven so far: a nonce that comes back proves the "
            "attempts of its session"
        )


Document = dict[str, Any]


def document(known: NetworkFacts) -> Document:
    """Return all facts about a network as a JSON object; times are RFC 3339, hostile text is printable."""
    story, attempts = known.story, [_attempt(outcome) for outcome in known.attempts()]
    return {
        "address": format_network(known.network),
        "subject": format_network(known.subject),
        "location": {**known.location},
        "verdict": str(known.verdict),
        "forecast": forecast(known),
        "evidence": remarks(known),
        "bans": [_running(known, one) for one in known.running],
        "past": [_past(one) for one in known.past],
        "lists": [_entry(holder) for holder in known.holders],
        "kernel_lists": _kernel_lists(known),
        **{key: fact for module in street.modules("why") for key, fact in module.facts(known).items()},
        "protected": [{"network": format_network(kept), "why": why} for kept, why in known.reasons.items()],
        "friend": bool(known.friends),
        "friends": [_friend(friend) for friend in known.friends],
        "former": [_friend(friend) for friend in known.former],
        "outage_mode": story is not None and story.outage_mode,
        "attempts": attempts,
        "groups": grouped(attempts, ALIKE),
        "alarms": [alarm.as_json() for alarm in known.alarms],
        "contains_exempt": known.contains_exempt,
        "rules": [_count(known, count) for count in story.counts] if story is not None else [],
        "enforcing": known.enforcing,
        "daemon": known.live,
        "problems": list(known.problems),
    }


def _kernel_lists(known: NetworkFacts) -> dict[str, bool]:
    """Return whether the lists of networks in the kernel contain the queried network, by list.

    While enforcement is off, the kernel has no lists. The list of friends is known only to a daemon; without
    one, its value is False.
    """
    if not known.enforcing:
        return {"allow": False, "deny": False, "friends": False}
    # The kernel's allow list also has the networks that this host needs, except loopback (ITSELF).
    guarded = any(kept.prefixlen <= known.network.prefixlen for kept in known.reasons.keys() - ITSELF.keys())
    return {
        "allow": bool(known.on(ListKind.ALLOW)) or guarded,
        "deny": bool(known.on(ListKind.DENY)),
        "friends": known.live and bool(known.friends),
    }


def _running(known: NetworkFacts, one: ActiveBan) -> Document:
    ban, element, left = one.ban, one.element, _left(one)
    expires = ban.expires if ban is not None else known.now + left
    return {
        "network": format_network(one.network),
        "scope": str(one.scope),
        **(ban_json(ban) if ban is not None else UNRECORDED),
        "expires": rfc3339(expires) if isfinite(expires) else None,
        "in_kernel": element is not None,
        "timeout": round(left) if isfinite(left) else None,
        "packets": element.packets if element is not None else None,
        "bytes": element.bytes if element is not None else None,
    }


def _past(one: RecordedBan) -> Document:
    return {
        "network": format_network(one.ban.network),
        "scope": str(one.ban.scope),
        **ban_json(one.ban),
        "ended": None if one.removed is None else rfc3339(one.removed),
        **one.end.as_json(),
    }


def _entry(holder: Holder) -> Document:
    entry = holder.entry
    return {
        "list": str(entry.kind),
        "entry": printable(entry.value),
        "network": format_network(holder.network),
        "note": printable(entry.note),
        "source": printable(entry.origin),
        "ends": None if entry.until is None else rfc3339(entry.until),
        "forced": entry.forced,
    }


def _friend(friend: Friend) -> Document:
    encoded = as_json(friend)
    texts = {key: printable(encoded[key]) for key in ("account", "asterisk")}
    return {**encoded, **texts, "proven": friend.proven}


def _attempt(outcome: AttemptOutcome) -> Document:
    attempt = outcome.attempt
    return {
        "time": rfc3339(attempt.time),
        "asterisk": printable(attempt.asterisk),
        "address": str(attempt.address),
        "kind": str(attempt.kind),
        "reason": reason_of(attempt),
        "account": printable(attempt.account),
        "event": str(attempt.event),
        "service": str(attempt.service),
        "transport": str(attempt.transport),
        "proof": attempt.proof.name.lower(),
        "sources": [printable(source) for source in sources_of(attempt)],
        "trusted": attempt.trusted,
        "tampered": attempt.tampered,
        "forged_address": None if attempt.forged_address is None else str(attempt.forged_address),
        "ban": None if outcome.ban is None else rfc3339(outcome.ban),
    }


def _count(known: NetworkFacts, count: Count) -> Document:
    return {
        "rule": count.rule.name,
        "meaning": count.rule.meaning,
        "by": count.rule.by.name.lower(),
        "of": count.number,
        "have": count.have,
        "proven": count.proven,
        "window": count.within,
        "ends": None if count.ends is None else rfc3339(count.ends + known.ahead),
    }
