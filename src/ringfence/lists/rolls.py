"""From entries to what the kernel is told: whom nothing drops, and whom nothing lets in.

Allow wins: the kernel asks its list first, so what is denied within what is allowed needs no subtraction.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import Factory, define, frozen

from ringfence.lists.entries import COMMAND, CONFIGURATION, Kind, refused, what_from
from ringfence.lists.prefixes import Gatherer, Prefixes, coded
from ringfence.model import ListEntry, Network, Side

Answers = Mapping[str, frozenset[Network]]
"""Where names lead."""

Places = Callable[[frozenset[str]], Mapping[str, Prefixes]]
"""What gives the networks of countries and network numbers."""


@frozen
class Rolls:
    """Whom nothing drops (``allow``), and whom nothing lets in (``deny``), each in few bytes.

    ``guarded`` is what the host itself needs (its gateway, resolvers, the administrator's login), without
    what is denied by force. A list may hold it by chance, so the kernel's list of those who are allowed is to
    hold it too.
    """

    allow: Prefixes = Factory(Prefixes)
    deny: Prefixes = Factory(Prefixes)
    guarded: frozenset[Network] = frozenset()


@frozen
class Composed:
    """The rolls of some entries, and what was learned on the way.

    ``hosts`` are the names to be followed, ``places`` the countries and network numbers, each with how many
    networks it has. ``forced`` is what is denied whatever it is. ``ends`` is when the first of the entries
    ends, None where none does.
    """

    rolls: Rolls
    hosts: frozenset[str] = frozenset()
    places: Mapping[str, int] = Factory(dict)
    forced: tuple[Network, ...] = ()
    ends: float | None = None
    problems: tuple[str, ...] = ()


@define
class _Found:
    """What one list has so far."""

    networks: Gatherer = Factory(Gatherer)
    hosts: set[str] = Factory(set)
    places: set[str] = Factory(set)


def compose(
    entries: Iterable[ListEntry],
    answers: Answers,
    places: Places,
    protected: Mapping[Network, str],
) -> Composed:
    """Make the rolls of ``entries``; what cannot be had of them is a problem, and the rest goes on."""
    found = {side: _Found() for side in Side}
    forced: list[Network] = []
    ends: float | None = None
    problems: list[str] = []
    for entry in entries:
        if entry.until is not None:
            ends = entry.until if ends is None else min(ends, entry.until)
        try:
            network = _take(entry, found[entry.side])
        except ValueError as error:
            problems.append(f"{entry.side} list: {error}")
            continue
        if entry.side is Side.ALLOW or network is None:
            continue
        if entry.forced:
            forced.append(network)
        elif reason := refused(network, protected):
            problems.append(f"deny list: {reason}, which is not denied; take it off, or --force it")
    counts = _lead(found, answers, places, problems)
    rolls = Rolls(
        found[Side.ALLOW].networks.prefixes(),
        found[Side.DENY].networks.prefixes(),
        guarded(protected, forced),
    )
    hosts = frozenset(found[Side.ALLOW].hosts)
    return Composed(rolls, hosts, counts, tuple(forced), ends, tuple(problems))


def guarded(protected: Iterable[Network], forced: Sequence[Network]) -> frozenset[Network]:
    """Give what is protected without what is denied by force."""
    return frozenset(own for own in protected if not any(own.overlaps(network) for network in forced))


def _take(entry: ListEntry, found: _Found) -> Network | None:
    """Take an entry; give its network where somebody has thought of it by itself, in no imported list."""
    if entry.origin not in {COMMAND, CONFIGURATION}:  # by the hundred thousand, and networks only
        found.networks.take(*coded(entry.what))
        return None
    what = what_from(entry.what)
    if what.kind is Kind.HOST:
        found.hosts.add(what.text)
    elif what.kind is Kind.PLACE:
        found.places.add(what.text)
    elif what.network is not None:
        found.networks.add(what.network)
    return what.network


def _lead(
    found: Mapping[Side, _Found], answers: Answers, places: Places, problems: list[str]
) -> Mapping[str, int]:
    """Put in where names and places lead; give how many networks each place has.

    Names are for those who are allowed alone.
    """
    for host in found[Side.ALLOW].hosts:
        for network in answers.get(host, ()):
            found[Side.ALLOW].networks.add(network)
    wanted = frozenset(place for mine in found.values() for place in mine.places)
    known = places(wanted) if wanted else {}
    for side, mine in found.items():
        for place in sorted(mine.places):
            if known.get(place):
                mine.networks.extend(known[place])
            else:
                problems.append(f"{side} list: {place}: no network of it is known")
    return {place: len(networks) for place, networks in known.items()}
