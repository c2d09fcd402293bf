"""Unrequested events about phones: the address of each, whether it answers, and when it has gone."""

from ipaddress import ip_address

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse import rosters
from tests.parse.rosters import item

from ringfence.parse.roster import ContactTracker, ListedContact, RosterEvent
from ringfence.values.event import Service
from ringfence.values.friend import Contact

CAROL = Contact("pbx", Service.PJSIP, "carol", ip_address("198.18.1.13"), reachable=True)
CAROL_URI = "sip:carol@198.18.1.13:50244;x-ast-orig-host=10.0.0.5:5060"
DAVE = Contact("pbx", Service.SIP, "dave", ip_address("198.18.1.21"))
PJSIP = frozenset({Service.PJSIP})
SIP = frozenset({Service.SIP})


def status(word: str, uri: str = CAROL_URI) -> RosterEvent:
    """Return a status event about a contact of carol."""
    return item(rosters.CONTACT_STATUS, ContactStatus=word, URI=uri)


def test_a_contact_comes_answers_falls_silent_and_goes() -> None:
    """Each event gives the address, and a phone that answers is reachable."""
    where = ContactTracker("pbx")
    event = [where.on_event(status(word)) for word in ("NonQualified", "Reachable", "Unreachable", "Removed")]

    assert event == [
        evolve(CAROL, reachable=False),
        CAROL,
        evolve(CAROL, reachable=False, unreachable=True),
        evolve(CAROL, reachable=False, gone=True),
    ]
    assert where.replace_lists([], PJSIP) == ()


def test_a_contact_that_moves_within_its_address_stays() -> None:
    """A phone that registers from another port stays at its address when the old contact goes."""
    where = ContactTracker("pbx")
    where.on_event(status("Reachable"))
    where.on_event(status("Reachable", "sip:carol@198.18.1.13:50999"))

    assert where.on_event(status("Removed")) is None
    assert where.on_event(status("Removed", "sip:carol@198.18.1.13:50999")) == evolve(
        CAROL, reachable=False, gone=True
    )


@pytest.mark.parametrize("word", ["Created", "Updated"])
def test_a_status_without_reachability_changes_none(word: str) -> None:
    """A renewed registration is as reachable as before."""
    where = ContactTracker("pbx")
    assert where.on_event(status(word)) == evolve(CAROL, reachable=False)
    where.on_event(status("Reachable"))

    assert where.on_event(status(word)) == CAROL


def test_a_phone_that_does_not_answer_stays_unreachable() -> None:
    """Neither a renewed registration nor a list without status shows that it answers; a new address may."""
    where = ContactTracker("pbx")
    silent = evolve(CAROL, reachable=False, unreachable=True)
    where.on_event(status("Unreachable"))
    assert where.on_event(status("Updated")) == silent
    unknown = ListedContact(evolve(CAROL, reachable=False), CAROL_URI, has_status=False)
    assert where.replace_lists([unknown], PJSIP) == (silent,)
    assert where.on_event(status("NonQualified")) == evolve(CAROL, reachable=False)

    where.on_event(item(rosters.SIP_REGISTERED))
    where.on_event(item(rosters.SIP_REACHABLE, PeerStatus="Unreachable"))
    assert where.on_event(item(rosters.SIP_REGISTERED)) == evolve(DAVE, unreachable=True)
    late = item(rosters.SIP_REACHABLE, PeerStatus="Lagged")
    assert where.on_event(late) == DAVE
    where.on_event(item(rosters.SIP_REACHABLE, PeerStatus="Unreachable"))
    moved = item(rosters.SIP_REGISTERED, Address="198.18.1.99:5060")
    assert where.on_event(moved) == evolve(DAVE, address=ip_address("198.18.1.99"))


def test_a_phone_that_answers_beside_an_old_contact_is_not_unreachable() -> None:
    """A phone that restarted has a new port, and Asterisk asks at the old one until its registration ends."""
    where = ContactTracker("pbx")
    old, new = CAROL_URI, CAROL_URI.replace("sip:", "sip:new-")
    where.on_event(status("Reachable", old))
    where.on_event(status("Reachable", new))
    assert where.on_event(status("Unreachable", old)) == evolve(CAROL, reachable=False)
    assert where.on_event(status("Unreachable", new)) == evolve(CAROL, reachable=False, unreachable=True)


def test_the_last_reachability_holds_for_a_list_without_status() -> None:
    """Asterisk's database does not know the reachability; a list that does overrides the past."""
    where = ContactTracker("pbx")
    where.on_event(status("Reachable"))
    listed = ListedContact(evolve(CAROL, reachable=False, until=9.0), CAROL_URI, has_status=False)

    assert where.replace_lists([listed], PJSIP) == (evolve(CAROL, until=9.0),)
    assert where.on_event(status("Updated")) == evolve(CAROL, until=9.0)
    assert where.replace_lists([evolve(listed, has_status=True)], PJSIP) == (
        evolve(CAROL, reachable=False, until=9.0),
    )


def test_a_contact_in_no_list_stays_until_it_is_removed() -> None:
    """It may be in a database of its own, which the list does not contain."""
    where = ContactTracker("pbx")
    where.on_event(status("Reachable"))

    assert where.replace_lists([], PJSIP) == (CAROL,)
    assert where.replace_lists([], PJSIP) == (CAROL,)
    where.on_event(status("Removed"))
    assert where.replace_lists([], PJSIP) == ()


def test_a_contact_that_was_listed_goes_with_the_list() -> None:
    """A contact that was in the list and is missing in the next one is gone."""
    where = ContactTracker("pbx")
    where.replace_lists([ListedContact(CAROL, CAROL_URI)], PJSIP)

    assert where.replace_lists([], PJSIP) == ()


@pytest.mark.parametrize(
    ("listed", "goes", "returns"),
    [
        (ListedContact(CAROL, CAROL_URI), status("Removed"), status("Reachable")),
        (
            ListedContact(DAVE),
            item(rosters.SIP_REACHABLE, PeerStatus="Unregistered"),
            item(rosters.SIP_REGISTERED),
        ),
    ],
)
def test_a_contact_that_goes_after_the_request_of_a_list_is_gone(
    listed: ListedContact, goes: RosterEvent, returns: RosterEvent
) -> None:
    """The list may be older than the event, unless the contact returns, or the list is requested later."""
    services = frozenset({listed.contact.service})
    where = ContactTracker("pbx")
    where.replace_lists([listed], services)
    where.begin_lists()
    where.on_event(goes)
    assert where.replace_lists([listed], services) == ()
    where.on_event(returns)
    assert where.replace_lists([listed], services) == (listed.contact,)
    where.on_event(goes)
    where.begin_lists()
    assert where.replace_lists([listed], services) == (listed.contact,)


def test_contacts_that_go_while_lists_are_requested_are_bounded() -> None:
    """Beyond the bound, a list decides whether a contact is there."""
    where = ContactTracker("pbx", most=1)
    where.begin_lists()
    other = CAROL_URI.replace("sip:", "sip:other-")
    where.on_event(status("Removed", other))
    where.on_event(status("Removed"))
    listed = ListedContact(CAROL, CAROL_URI)
    assert where.replace_lists([evolve(listed, uri=other), listed], PJSIP) == (CAROL,)


def test_lists_of_one_service_leave_the_others() -> None:
    """Services whose lists are missing keep their contacts."""
    where = ContactTracker("pbx")
    where.replace_lists([ListedContact(CAROL, CAROL_URI), ListedContact(DAVE)], PJSIP | SIP)

    assert where.replace_lists([], SIP) == (CAROL,)


def test_a_peer_registers_answers_and_goes() -> None:
    """Only the first event names the address, and the others refer to it."""
    where = ContactTracker("pbx")
    gone = item(rosters.SIP_REACHABLE, PeerStatus="Unregistered")
    event = [
        where.on_event(one) for one in (item(rosters.SIP_REGISTERED), item(rosters.SIP_REACHABLE), gone, gone)
    ]

    assert event == [DAVE, evolve(DAVE, reachable=True), evolve(DAVE, gone=True), None]


def test_a_phone_registered_by_iax2_is_reachable() -> None:
    """Its registration is challenged at its address, and no security event reports that."""
    carol = Contact("pbx", Service.IAX2, "carol", ip_address("198.18.1.40"), reachable=True)
    where = ContactTracker("pbx")
    silent = item(rosters.IAX_REGISTERED, PeerStatus="Unreachable")
    moved = item(rosters.IAX_REGISTERED, Address="198.18.1.41")
    event = [
        where.on_event(one) for one in (item(rosters.IAX_REGISTERED), silent, item(rosters.IAX_REGISTERED))
    ]

    assert event == [carol, evolve(carol, reachable=False, unreachable=True), carol]
    assert where.on_event(moved) == evolve(carol, address=ip_address("198.18.1.41"))


def test_a_peer_that_registers_elsewhere_has_not_answered_there() -> None:
    """Reachability belongs to one address."""
    where = ContactTracker("pbx")
    where.on_event(item(rosters.SIP_REGISTERED))
    where.on_event(item(rosters.SIP_REACHABLE))

    assert where.on_event(item(rosters.SIP_REGISTERED)) == evolve(DAVE, reachable=True)
    assert where.on_event(item(rosters.SIP_REGISTERED, Address="198.18.1.99:5060")) == evolve(
        DAVE, address=ip_address("198.18.1.99")
    )


@pytest.mark.parametrize(
    "event",
    [
        item(rosters.PJSIP_PEER_STATUS),
        item(rosters.SIP_REACHABLE),
        item(rosters.SIP_REGISTERED, PeerStatus="Rejected"),
        item(rosters.SIP_REGISTERED, Address="phone.example:5060"),
        item(rosters.SIP_REGISTERED, Peer="dave"),
        item(rosters.SIP_REGISTERED, Peer="SIP"),
        item(rosters.SIP_REGISTERED, Peer="SIP/"),
        item(rosters.CONTACT_STATUS, URI="sip:carol@phone.example"),
        item(rosters.CONTACT_STATUS, URI="sip:carol@198.18.1.13;maddr=203.0.113.9"),
        item(rosters.CONTACT_STATUS, EndpointName=" ", AOR=" ", URI="x"),
        RosterEvent("ContactStatus", "", {}),
        RosterEvent("ContactStatus", "", {"URI": CAROL_URI, "AOR": "carol"}),
        RosterEvent("PeerStatus", "", {}),
        RosterEvent("FullyBooted", "", {}),
    ],
)
def test_events_without_an_address_change_nothing(event: RosterEvent) -> None:
    """An event about an unknown contact, or with a URI without a target, is ignored."""
    where = ContactTracker("pbx")

    assert where.on_event(event) is None
    assert where.replace_lists([], PJSIP) == ()


def test_the_number_of_contacts_is_bounded() -> None:
    """The contact without news for the longest time is dropped first, and the count is exact."""
    where = ContactTracker("pbx", most=3)
    for number in range(10):
        where.on_event(status("Reachable", f"sip:carol@198.18.1.{number}:5060"))
        where.on_event(item(rosters.SIP_REGISTERED, Peer=f"SIP/{number}"))

    kept = where.replace_lists([], frozenset())
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
@settings(deadline=None, max_examples=3 * settings().max_examples)
def test_no_event_raises_and_the_count_is_exact(words: list[tuple[str, str, str, str]]) -> None:
    """Any events in any order leave as many contacts as are counted, none of them gone."""
    where = ContactTracker("pbx", most=5)
    for name, word, who, place in words:
        headers = {"ContactStatus": word, "PeerStatus": word, "EndpointName": who, "Peer": who}
        where.on_event(RosterEvent(name, "", headers | {"URI": place, "Address": place}))

    kept = where.replace_lists([], frozenset())
    assert len(kept) == where._size <= 5
    assert not any(contact.gone for contact in kept)


def test_a_contact_that_goes_unknown_is_gone() -> None:
    """A contact that goes and was never reported is reported as gone, and no other contact changes."""
    where = ContactTracker("pbx")
    other = "sip:carol@198.18.1.14:50999"
    where.on_event(status("Reachable"))
    assert where.on_event(status("Removed", other)) == evolve(
        CAROL, address=ip_address("198.18.1.14"), reachable=False, gone=True
    )
    assert where.replace_lists([], PJSIP) == (CAROL,)
