"""What is told of phones unasked: where each is, whether it answers, and when it has gone."""

from ipaddress import ip_address

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse import rosters
from tests.parse.rosters import item

from ringfence.model import Contact, Service
from ringfence.parse.roster import Item, Listed
from ringfence.parse.roster_live import Whereabouts

CAROL = Contact("pbx", Service.PJSIP, "carol", ip_address("198.18.1.13"), reachable=True)
CAROL_URI = "sip:carol@198.18.1.13:50244;x-ast-orig-host=10.0.0.5:5060"
DAVE = Contact("pbx", Service.SIP, "dave", ip_address("198.18.1.21"))
PJSIP = frozenset({Service.PJSIP})
SIP = frozenset({Service.SIP})


def status(word: str, uri: str = CAROL_URI) -> Item:
    """Give a word about a contact of carol's."""
    return item(rosters.CONTACT_STATUS, ContactStatus=word, URI=uri)


def test_a_contact_comes_answers_falls_silent_and_goes() -> None:
    """Each word is told with the address, and reachable is who answers."""
    where = Whereabouts("pbx")
    told = [where.hear(status(word)) for word in ("NonQualified", "Reachable", "Unreachable", "Removed")]

    assert told == [
        evolve(CAROL, reachable=False),
        CAROL,
        evolve(CAROL, reachable=False),
        evolve(CAROL, reachable=False, gone=True),
    ]
    assert where.take([], PJSIP) == ()


def test_a_contact_that_moves_within_its_address_stays() -> None:
    """A phone that registers from another port has not gone from its address when the old contact has."""
    where = Whereabouts("pbx")
    where.hear(status("Reachable"))
    where.hear(status("Reachable", "sip:carol@198.18.1.13:50999"))

    assert where.hear(status("Removed")) is None
    assert where.hear(status("Removed", "sip:carol@198.18.1.13:50999")) == evolve(
        CAROL, reachable=False, gone=True
    )


@pytest.mark.parametrize("word", ["Created", "Updated"])
def test_a_word_that_tells_nothing_of_it_leaves_who_answers(word: str) -> None:
    """A renewed registration is as reachable as before."""
    where = Whereabouts("pbx")
    assert where.hear(status(word)) == evolve(CAROL, reachable=False)
    where.hear(status("Reachable"))

    assert where.hear(status(word)) == CAROL


def test_what_was_said_last_holds_for_a_list_that_does_not_say_it() -> None:
    """Asterisk's database does not know who answers; the list that does is believed over the past."""
    where = Whereabouts("pbx")
    where.hear(status("Reachable"))
    listed = Listed(evolve(CAROL, reachable=False, until=9.0), CAROL_URI, tells=False)

    assert where.take([listed], PJSIP) == (evolve(CAROL, until=9.0),)
    assert where.hear(status("Updated")) == evolve(CAROL, until=9.0)
    assert where.take([evolve(listed, tells=True)], PJSIP) == (evolve(CAROL, reachable=False, until=9.0),)


def test_a_contact_that_no_list_knows_stays_until_it_goes() -> None:
    """It may lie in a database of its own, of which the list knows nothing."""
    where = Whereabouts("pbx")
    where.hear(status("Reachable"))

    assert where.take([], PJSIP) == (CAROL,)
    assert where.take([], PJSIP) == (CAROL,)
    where.hear(status("Removed"))
    assert where.take([], PJSIP) == ()


def test_a_contact_that_was_listed_goes_with_the_list() -> None:
    """Who was in the list and is not in it any more is not there."""
    where = Whereabouts("pbx")
    where.take([Listed(CAROL, CAROL_URI)], PJSIP)

    assert where.take([], PJSIP) == ()


def test_lists_of_one_service_leave_the_others() -> None:
    """What could not be asked for is as it was."""
    where = Whereabouts("pbx")
    where.take([Listed(CAROL, CAROL_URI), Listed(DAVE)], PJSIP | SIP)

    assert where.take([], SIP) == (CAROL,)


def test_a_peer_registers_answers_and_goes() -> None:
    """Only the first word names the address, and the others are of it."""
    where = Whereabouts("pbx")
    gone = item(rosters.SIP_REACHABLE, PeerStatus="Unregistered")
    told = [
        where.hear(one) for one in (item(rosters.SIP_REGISTERED), item(rosters.SIP_REACHABLE), gone, gone)
    ]

    assert told == [DAVE, evolve(DAVE, reachable=True), evolve(DAVE, gone=True), None]


def test_who_registers_by_iax2_has_answered_there() -> None:
    """Its registration is challenged where it came from, and no security event tells of that."""
    carol = Contact("pbx", Service.IAX2, "carol", ip_address("198.18.1.40"), reachable=True)
    where = Whereabouts("pbx")
    silent = item(rosters.IAX_REGISTERED, PeerStatus="Unreachable")
    moved = item(rosters.IAX_REGISTERED, Address="198.18.1.41")
    told = [where.hear(one) for one in (item(rosters.IAX_REGISTERED), silent, item(rosters.IAX_REGISTERED))]

    assert told == [carol, evolve(carol, reachable=False), carol]
    assert where.hear(moved) == evolve(carol, address=ip_address("198.18.1.41"))


def test_a_peer_that_registers_elsewhere_has_not_answered_there() -> None:
    """To be reachable is of an address."""
    where = Whereabouts("pbx")
    where.hear(item(rosters.SIP_REGISTERED))
    where.hear(item(rosters.SIP_REACHABLE))

    assert where.hear(item(rosters.SIP_REGISTERED)) == evolve(DAVE, reachable=True)
    assert where.hear(item(rosters.SIP_REGISTERED, Address="198.18.1.99:5060")) == evolve(
        DAVE, address=ip_address("198.18.1.99")
    )


@pytest.mark.parametrize(
    "told",
    [
        item(rosters.PJSIP_PEER_STATUS),
        item(rosters.SIP_REACHABLE),
        item(rosters.SIP_REGISTERED, PeerStatus="Rejected"),
        item(rosters.SIP_REGISTERED, Address="phone.example:5060"),
        item(rosters.SIP_REGISTERED, Peer="dave"),
        item(rosters.CONTACT_STATUS, URI="sip:carol@phone.example"),
        item(rosters.CONTACT_STATUS, URI="sip:carol@198.18.1.13;maddr=203.0.113.9"),
        item(rosters.CONTACT_STATUS, EndpointName=" ", AOR=" ", URI="x"),
        Item("ContactStatus", "", {}),
        Item("PeerStatus", "", {}),
        Item("FullyBooted", "", {}),
    ],
)
def test_what_names_no_address_changes_nothing(told: Item) -> None:
    """A word about nobody that is known, or that leads nowhere, is passed over."""
    where = Whereabouts("pbx")

    assert where.hear(told) is None
    assert where.take([], PJSIP) == ()


def test_no_more_is_kept_than_there_is_room_for() -> None:
    """Who was heard of longest ago goes first, and what is counted is what is kept."""
    where = Whereabouts("pbx", most=3)
    for number in range(10):
        where.hear(status("Reachable", f"sip:carol@198.18.1.{number}:5060"))
        where.hear(item(rosters.SIP_REGISTERED, Peer=f"SIP/{number}"))

    kept = where.take([], frozenset())
    assert len(kept) == where._size == 3
    assert kept[-1].account == "9"


WORDS = ["Reachable", "Unreachable", "Removed", "Registered", "Unregistered", "Updated", "x", ""]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ContactStatus", "PeerStatus"]),
            st.sampled_from(WORDS),
            st.sampled_from(["a", "SIP/a", "SIP/b", "/", ""]) | st.text(max_size=5),
            st.sampled_from(["sip:a@192.0.2.1", "sip:a@192.0.2.2", "192.0.2.1:5", ""]) | st.text(max_size=9),
        ),
        max_size=30,
    )
)
@settings(deadline=None, max_examples=300)
def test_no_word_raises_and_what_is_kept_is_counted(words: list[tuple[str, str, str, str]]) -> None:
    """Any words in any order leave as many contacts as are counted, none of them gone."""
    where = Whereabouts("pbx", most=5)
    for name, word, who, place in words:
        headers = {"ContactStatus": word, "PeerStatus": word, "EndpointName": who, "Peer": who}
        where.hear(Item(name, "", headers | {"URI": place, "Address": place}))

    kept = where.take([], frozenset())
    assert len(kept) == where._size <= 5
    assert not any(contact.gone for contact in kept)
