"""Faults that show at certain sites: other programs, containers, IPv6, two Asterisks, bounds and alarms."""
# ruff: noqa: ANN401 - a replaced function may be any

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

from tests.judge.asterisk import HERE, HERE_BY_IPV6, HERE_TOO, SECOND, Act
from tests.judge.fault import Change, Fault
from tests.judge.worlds import ATTACKERS, LAMPS, OFFICE, VICTIM, Site

from ringfence.values.event import WIRE
from ringfence.values.fast import evolve

_A = ATTACKERS[0]
_CONVERSATIONS = "ringfence.detect.conversation:Conversations"
_FINAL = 200
_MOST_ALARMS = 1_000


def _always(answer: object) -> Change:
    """Return a change by which a function returns the same, whatever its arguments are."""
    return lambda _right: lambda *_arguments, **_named: answer


def _first_nonce_only(right: Any) -> Any:
    def parse_request(*arguments: Any, **options: Any) -> Any:
        request = right(*arguments, **options)
        return evolve(request, nonces=request.nonces[:1])

    return parse_request


def _one_local_address(right: Any) -> Any:
    def answer(self: Any, answer: Any, sender: Any, now: float) -> Any:
        return right(self, answer, sender, now) if answer.local_address == ip_address(HERE) else None

    return answer


def _no_trying(right: Any) -> Any:
    def answer(self: Any, answer: Any, sender: Any, now: float) -> Any:
        return right(self, answer, sender, now) if answer.status >= _FINAL else None

    return answer


def _unknown_is_no(_right: Any) -> Any:
    def excludes(self: Any, address: Any, now: float) -> bool:
        return not self._connections.had_any(address, now)

    return excludes


def _at_this_address(_right: Any) -> Any:
    return lambda self, account, address: self.worked_at(account, address)


def _claims_go_last(right: Any) -> Any:
    def put(self: Any, key: Any, kept: Any, **_options: Any) -> None:
        right(self, key, kept, proven=False)

    return put


def _wire_is_of_the_first(right: Any) -> Any:
    def tables(session: Any, event: Any, *, listed: bool) -> Iterator[Any]:
        if event.source.name != WIRE and event.source.asterisk == SECOND:
            known = session.attempts.get((SECOND, event.service, listed))
            return iter([known] if known is not None else [])
        return (one for one in right(session, event, listed=listed) if one.reported or not listed)

    return tables


def _first_come(_right: Any) -> Any:
    return lambda _self, _code, _subject, of_code: int(len(of_code) < _MOST_ALARMS)


def _returning_is_free(right: Any) -> Any:
    def room_for(self: Any, key: Any, now: float, *, proven: bool) -> Any:
        return self._returning if key in self._before else right(self, key, now, proven=proven)

    return room_for


def _forgets_that_it_forgot(_right: Any) -> Any:
    def drop(self: Any, sender: Any, session: Any, _now: float) -> None:
        del sender.sessions[session.name]
        del self._sessions[session]

    return drop


def _whole_prefix(_right: Any) -> Any:
    return lambda prefix, _members: prefix


def _forged(number: int, first: str, *, guesses: int = 2, wait: float = 0.01) -> list[Act]:
    """Return guesses under forged addresses, in ascending order."""
    addresses = [str(ip_address(first) + one) for one in range(number)]
    return [
        Act("forges a guess", ATTACKERS[1], address, wait=wait)
        for address in addresses
        for _ in range(guesses)
    ]


FAULTS_OF_SITES = (
    Fault(
        "d",
        "A guess at a second local address of the PBX does not count.",
        f"{_CONVERSATIONS}.answer",
        _one_local_address,
        tuple(Act("hides by headers", _A, here=HERE_TOO) for _ in range(5)),
    ),
    Fault(
        "e",
        "A first Authorization header of garbage keeps each attempt claimed.",
        "ringfence.parse.requests:parse_request",
        _first_nonce_only,
        tuple(Act("guesses behind garbage", _A) for _ in range(5)),
    ),
    Fault(
        "i",
        "The text of a relay on this host counts as an answer of Asterisk.",
        "ringfence.sources.wire:WireSource._is_own",
        _always(answer=True),
        tuple(Act("relays text", _A, VICTIM) for _ in range(5)),
    ),
    Fault(
        "j",
        "With Asterisk in a container, a line is called forged because no connection is known.",
        "ringfence.detect.confirmation:Backing.excludes",
        _unknown_is_no,
        (Act("asks", _A), Act("hides", _A, transport="TLS")),
        Site(container=True),
    ),
    Fault(
        "m",
        "The answers of another SIP server in a bridge count as those of Asterisk.",
        "ringfence.sources.wire:WireSource._is_containers",
        _always(answer=True),
        tuple(Act("logs in at another server", LAMPS) for _ in range(5)),
    ),
    Fault(
        "n",
        "A phone registered at chan_sip is no friend, so that a colleague's wrong password bans the office.",
        "ringfence.detect.friends:Friends.has",
        _always(answer=False),
        (
            Act("registers", OFFICE),
            *(Act("guesses at chan_sip", OFFICE, account="205") for _ in range(6)),
        ),
    ),
    Fault(
        "o",
        "An old password at a new temporary IPv6 address bans the /64.",
        "ringfence.detect.friends:Friends.worked_near",
        _at_this_address,
        (
            Act("logs in", "2001:db8:1::20", here=HERE_BY_IPV6),
            *(Act("guesses", "2001:db8:1::21", here=HERE_BY_IPV6) for _ in range(6)),
        ),
    ),
    Fault(
        "p",
        "A 403 for a forbidden number is judged before the login that excuses it.",
        f"{_CONVERSATIONS}.answer",
        _no_trying,
        tuple(Act("call refused", LAMPS) for _ in range(5)),
    ),
    Fault(
        "q",
        "Long Call-IDs are kept whole.",
        "ringfence.parse.answers:short_session",
        lambda _right: lambda session: session,
        tuple(
            Act("hides at length", str(ip_address("203.0.113.20") + one))
            for one in range(10)
            for _ in range(4)
        ),
    ),
    Fault(
        "r",
        "Two forged datagrams for each source evict the count of a real attacker.",
        "ringfence.detect.history:_Generation.put",
        _claims_go_last,
        (
            *(Act("guesses", _A) for _ in range(4)),
            *_forged(40, "192.0.2.1"),
            Act("guesses", _A),
        ),
        Site(attempts=64),
    ),
    Fault(
        "s",
        "With two Asterisks, each guess at the chan_sip of the second one counts twice.",
        "ringfence.detect.sessions:_tables",
        _wire_is_of_the_first,
        tuple(Act("guesses at chan_sip", _A, asterisk=SECOND) for _ in range(2)),
    ),
    Fault(
        "t",
        "A thousand addresses with one hidden guess each keep the next one from being shown.",
        "ringfence.alarms:Alarms._make_room",
        _first_come,
        (
            *(
                Act("hides", f"10.{one >> 8}.{one & 0xFF}.1", account=str(one), transport="TCP", wait=0.01)
                for one in range(_MOST_ALARMS)
            ),
            *(Act("hides", _A, transport="TCP") for _ in range(3)),
        ),
    ),
    Fault(
        "u1",
        "Bans on forged evidence are renewed for ever, outside the limit of claimed bans.",
        "ringfence.detect.judge:ClaimedLimit._room_for",
        _returning_is_free,
        (
            *_forged(7, "192.0.2.1", guesses=5, wait=7.0),
            Act("asks", _A, wait=700.0),
            *_forged(7, "192.0.2.1", guesses=5, wait=1.0),
        ),
        Site(claims=2),
    ),
    Fault(
        "u2",
        "A report counts again because forged senders have evicted what was known of it.",
        "ringfence.detect.sessions:Senders._drop",
        _forgets_that_it_forgot,
        (
            Act("forges a guess", _A, VICTIM, late=2.0),
            *_forged(40, "192.0.2.1"),
        ),
        Site(sessions=16),
    ),
    Fault(
        "u3",
        "Three /64s ban the /48 of all customers.",
        "ringfence.detect.judge:narrowest",
        _whole_prefix,
        tuple(
            Act("guesses", f"2001:db8:7:{one}::5", here=HERE_BY_IPV6) for _ in range(4) for one in range(1, 7)
        ),
    ),
)
"""The findings that depend on where the guard runs, and on its bounds."""
