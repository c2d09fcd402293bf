"""The sets by name and kind."""

from attrs import evolve

from ringfence.firewall.contract import Roll
from ringfence.firewall.ipset_messages import SetHead
from ringfence.firewall.ipset_sets import bans_name, every_name, fresh_name, kinds, roll_name, what_lacks
from ringfence.model import Scope

HEAD = SetHead("ringfence4", "hash:net", 4, timeout=True, counters=True, maxelem=1, elements=0, references=0)


def test_the_previous_releases_sets_keep_their_names() -> None:
    """The sets of full bans are called as they were: an installation that runs is adopted."""
    assert [bans_name(4, Scope.FULL), bans_name(6, Scope.FULL)] == ["ringfence4", "ringfence6"]


def test_every_set_can_be_removed_by_name() -> None:
    """What is made is among what is removed, and so is a roll that was being filled; 31 letters at most."""
    names = every_name()

    assert len(names) == len(set(names))
    assert {kind.name for version in (4, 6) for kind in kinds(version)} < set(names)
    assert {fresh_name(roll_name(roll, version)) for roll in Roll for version in (4, 6)} < set(names)
    assert max(map(len, names)) < 32


def test_a_set_of_ours_is_accepted_and_others_are_named() -> None:
    """Type, IP version, timeouts and counters are asked of a set of bans; a roll may have timeouts or not."""
    full, _udp, allow, *_ = kinds(4)
    assert [what_lacks(HEAD, full), what_lacks(HEAD, allow)] == [None, None]
    assert what_lacks(evolve(HEAD, counters=False, timeout=False), allow) is None
    for head, message in (
        (evolve(HEAD, version=6), "is a hash:net for IPv6 and not a hash:net for IPv4"),
        (evolve(HEAD, counters=False), "has no counters"),
        (evolve(HEAD, timeout=False), "has no timeouts"),
    ):
        assert what_lacks(head, full) == (
            f"set ringfence4 exists and {message}; mend: `ringfence off`, or `ipset destroy ringfence4`"
        )
