"""From entries to what the kernel is told."""

from collections.abc import Mapping
from ipaddress import ip_network

from ringfence.lists.entries import COMMAND, CONFIGURATION
from ringfence.lists.prefixes import Prefixes
from ringfence.lists.rolls import Composed, Rolls, compose
from ringfence.model import ListEntry, Side

GATEWAY = ip_network("192.0.2.1")
PROTECTED = {GATEWAY: "the default gateway"}


def entry(
    side: Side, what: str, origin: str = COMMAND, until: float | None = None, *, forced: bool = False
) -> ListEntry:
    """Give an entry."""
    return ListEntry(side, what, "", 1.0, until, origin, forced)


def allow(what: str, origin: str = COMMAND) -> ListEntry:
    """Give an entry of those who are allowed."""
    return entry(Side.ALLOW, what, origin)


def deny(what: str, origin: str = COMMAND) -> ListEntry:
    """Give an entry of those who are denied."""
    return entry(Side.DENY, what, origin)


def composed(*entries: ListEntry, known: Mapping[str, list[str]] | None = None) -> Composed:
    """Compose entries; ``known`` is where names and places lead."""
    known = known or {}
    answers = {name: frozenset(map(ip_network, texts)) for name, texts in known.items() if "." in name}
    return compose(
        entries,
        answers,
        lambda places: {p: Prefixes.of(map(ip_network, known[p])) for p in places if p in known},
        PROTECTED,
    )


def texts(networks: Prefixes) -> list[str]:
    """Give networks as texts."""
    return [str(network) for network in networks]


def test_nothing_gives_nobody_and_what_is_protected() -> None:
    """Without an entry nobody is on a list."""
    assert composed() == Composed(Rolls(guarded=frozenset({GATEWAY})))


def test_entries_of_every_origin_and_kind_come_together() -> None:
    """Networks, names and places of the configuration, of commands and of files are merged list by list."""
    found = composed(
        allow("198.51.100.0/25", CONFIGURATION),
        allow("198.51.100.128/25"),
        allow("sip.carrier.example"),
        allow("country DE", CONFIGURATION),
        deny("203.0.113.9", "/srv/list"),
        deny("2001:db8::/32"),
        deny("AS64511"),
        known={
            "sip.carrier.example": ["192.0.2.9", "2001:db8:1::1"],
            "country DE": ["11.0.0.0/8"],
            "AS64511": ["203.0.113.0/28"],
        },
    )

    assert texts(found.rolls.allow) == ["11.0.0.0/8", "192.0.2.9/32", "198.51.100.0/24", "2001:db8:1::1/128"]
    assert texts(found.rolls.deny) == ["203.0.113.0/28", "2001:db8::/32"]
    assert found.hosts == {"sip.carrier.example"}
    assert found.places == {"country DE": 1, "AS64511": 1}
    assert found.problems == ()


def test_allow_needs_no_subtraction() -> None:
    """What is on both lists stays on both: the kernel asks for those who are allowed first."""
    found = composed(allow("192.0.2.7"), deny("192.0.2.0/28", "/srv/list"))

    assert texts(found.rolls.allow) == ["192.0.2.7/32"]
    assert texts(found.rolls.deny) == ["192.0.2.0/28"]


def test_what_cannot_be_had_is_a_problem() -> None:
    """A place that no database knows, and an entry that is none, are told; the rest goes on."""
    found = composed(
        allow("country XX"), deny("rubbish!"), deny("no address", "/srv/list"), deny("203.0.113.9")
    )

    assert texts(found.rolls.deny) == ["203.0.113.9/32"]
    assert [problem.split(":")[:2] for problem in found.problems] == [
        ["deny list", " rubbish!"],
        ["deny list", " 'no address' does not appear to be an IPv4 or IPv6 network"],
        ["allow list", " country XX"],
    ]


def test_what_is_protected_is_guarded_but_by_force() -> None:
    """A list may hold the gateway by chance; a person's entry is told, and with force is obeyed."""
    by_chance = composed(deny("192.0.2.0/24", "/srv/list"))
    by_hand = composed(deny("192.0.2.0/24", CONFIGURATION))
    by_force = composed(entry(Side.DENY, "192.0.2.0/24", forced=True))

    assert by_chance.rolls.guarded == {GATEWAY}
    assert by_chance.problems == ()
    assert by_hand.rolls.guarded == {GATEWAY}
    [problem] = by_hand.problems
    assert problem.startswith(
        "deny list: 192.0.2.0/24 holds 192.0.2.1, the default gateway, which is not denied"
    )
    assert by_force.rolls.guarded == frozenset()
    assert by_force.problems == ()
    assert by_force.forced == (ip_network("192.0.2.0/24"),)


def test_the_first_end_is_known() -> None:
    """Of entries that end, the first end counts."""
    assert composed(allow("192.0.2.7")).ends is None
    assert composed(*(entry(Side.DENY, f"203.0.113.{n}", until=n) for n in (9, 5, 7))).ends == 5.0


def test_an_imported_name_is_none() -> None:
    """Files hold networks and nothing else, whatever somebody wrote into the database."""
    assert composed(allow("a.example", "/srv/list")).hosts == frozenset()
