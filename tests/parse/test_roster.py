"""Lists of phones and trunks: reports of real Asterisks, and changes that a hostile phone may cause."""

import json
from ipaddress import ip_address

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse import rosters
from tests.parse.rosters import item

from ringfence.parse.roster import (
    Entry,
    Headers,
    ListedContact,
    Question,
    RosterEvent,
    means_empty,
    parse_roster_event,
    plan_questions,
    reloads_accounts,
)
from ringfence.values.event import Service, Transport
from ringfence.values.friend import Contact, TrunkHost

GRANTED = {
    22: ["CoreStatus", "DBGetTree", "PJSIPQualify", "PJSIPShowRegistrationsOutbound", "Ping"],
    16: ["CoreStatus", "DBGetTree", "PJSIPShowRegistrationsOutbound", "SIPpeers", "SIPshowregistry"],
}
EVERYTHING = [
    "CoreStatus",
    "DBGetTree",
    "IAXpeerlist",
    "IAXregistry",
    "PJSIPShowContacts",
    "PJSIPShowRegistrationsOutbound",
    "SIPpeers",
    "SIPshowregistry",
]


def question(action: str) -> Question:
    """Return the question of that action."""
    commands = [command for command in EVERYTHING if command not in ("DBGetTree", "PJSIPShowContacts")]
    plan = plan_questions([*commands, action])
    return next(one for one in (*plan.contacts, *plan.trunks) if one.action == action)


def entries(action: str, event: RosterEvent) -> tuple[Entry, ...]:
    """Parse an entry of an action's list."""
    asked = question(action)
    assert event.name == asked.entry
    return asked.parse(event.headers, "pbx")


def contact(service: Service, account: str, address: str, **more: float | bool | None) -> Contact:
    """Return a contact of the PBX."""
    return Contact("pbx", service, account, ip_address(address), **more)  # type: ignore[arg-type]


def tree(**values: object) -> RosterEvent:
    """Return a contact of Asterisk's database with other values."""
    recorded = item(rosters.TREE)
    kept = json.loads(recorded.headers["Val"]) | values
    return RosterEvent(recorded.name, recorded.action, {**recorded.headers, "Val": json.dumps(kept)})


def test_a_contact_of_asterisks_database() -> None:
    """Account, address and end are those of the contact; its reachability is unknown."""
    phone = contact(Service.PJSIP, "alice", "198.18.1.10", until=1795193107.0)

    assert entries("DBGetTree", item(rosters.TREE)) == (
        ListedContact(phone, "sip:alice@198.18.1.10:53733", has_status=False),
    )


def test_a_contact_without_a_path_is_behind_no_proxy() -> None:
    """A contact in the database without a path counts as one with an empty path."""
    event = tree()
    kept = json.loads(event.headers["Val"])
    del kept["path"]
    event = RosterEvent(event.name, event.action, {**event.headers, "Val": json.dumps(kept)})

    assert entries("DBGetTree", event) == entries("DBGetTree", tree(path=""))
    assert len(entries("DBGetTree", event)) == 1


def test_a_contact_that_is_listed_with_its_status() -> None:
    """Only Asterisk's status ``Reachable`` makes a contact reachable."""
    phone = contact(Service.PJSIP, "carol", "198.18.1.13", until=1795193477.0, reachable=True)
    uri = "sip:carol@198.18.1.13:57925;x-ast-orig-host=10.0.0.5:5060"

    assert entries("PJSIPShowContacts", item(rosters.CONTACT_LIST)) == (ListedContact(phone, uri),)
    for status in ("NonQualified", "Unreachable", "Unknown", "reachable", "Reachable "):
        (listed,) = entries("PJSIPShowContacts", item(rosters.CONTACT_LIST, Status=status))
        assert isinstance(listed, ListedContact)
        assert not listed.contact.reachable
        assert listed.contact.unreachable is (status == "Unreachable")


@pytest.mark.parametrize(
    "values",
    [
        {"uri": "sip:alice@phone.host.example:5062;transport=tcp"},
        {"uri": "sip:alice@198.18.1.10;maddr=203.0.113.9"},
        {"uri": 'sip:alice@198.18.1.10;x="a@203.0.113.9"'},
        {"uri": ""},
        {"uri": None},
        {"uri": ["sip:alice@198.18.1.10"]},
        {"path": "<sip:203.0.113.9;lr>"},
    ],
)
def test_a_contact_with_another_target_is_ignored(values: dict[str, object]) -> None:
    """A name, an ambiguous text, a path through a proxy, or nothing: no address is found."""
    assert entries("DBGetTree", tree(**values)) == ()


def test_other_claims_of_a_phone_give_no_address() -> None:
    """Neither the address in its Via nor its user agent gives an address."""
    claims = {
        "via_addr": "203.0.113.9",
        "user_agent": 'x","uri":"sip:x@203.0.113.9',
        "call_id": "203.0.113.9",
    }
    (listed,) = entries("DBGetTree", tree(**claims))

    assert isinstance(listed, ListedContact)
    assert listed.contact.address == ip_address("198.18.1.10")


@pytest.mark.parametrize(
    ("text", "until"),
    [("1795193107", 1795193107.0), ("0", None), ("", None), ("-1", None), ("1e9", None), ("9" * 40, None)],
)
def test_an_end_is_a_time(text: str, until: float | None) -> None:
    """Text that is no time, and the 0 of a contact without an end, give None."""
    (listed,) = entries("DBGetTree", tree(expiration_time=text))

    assert isinstance(listed, ListedContact)
    assert listed.contact.until == until


def test_where_no_endpoint_stands_the_key_names_the_account() -> None:
    """The AOR's name is used, without the contact's hash."""
    (listed,) = entries("DBGetTree", tree(endpoint=""))

    assert isinstance(listed, ListedContact)
    assert listed.contact.account == "alice"


@pytest.mark.parametrize(
    ("action", "recorded", "expected"),
    [
        ("SIPpeers", rosters.SIP_PEER, contact(Service.SIP, "dave", "198.18.1.21", reachable=True)),
        ("IAXpeerlist", rosters.IAX_PEER, contact(Service.IAX2, "iaxstatic", "198.18.1.56")),
        ("IAXpeerlist", rosters.IAX_PHONE, contact(Service.IAX2, "carol", "198.18.1.40", reachable=True)),
    ],
)
def test_a_peer(action: str, recorded: bytes, expected: Contact) -> None:
    """A peer is at the address to which Asterisk sends; it is reachable if it answers there in time."""
    assert entries(action, item(recorded)) == (ListedContact(expected),)


def test_a_peer_without_a_status_is_not_reachable() -> None:
    """Nothing shows that such a phone answers."""
    event = item(rosters.SIP_PEER)
    headers = {name: value for name, value in event.headers.items() if name != "Status"}
    (listed,) = entries("SIPpeers", RosterEvent(event.name, event.action, headers))

    assert listed == ListedContact(contact(Service.SIP, "dave", "198.18.1.21"))


@pytest.mark.parametrize(
    "status", ["Unmonitored", "UNREACHABLE", "UNKNOWN", "LAGGED (2500 ms)", "OK", "ok (1 ms)"]
)
def test_a_peer_that_does_not_answer_is_not_reachable(status: str) -> None:
    """Every status except an answer in time leaves the peer at its claimed address."""
    (listed,) = entries("SIPpeers", item(rosters.SIP_PEER, Status=status))

    assert isinstance(listed, ListedContact)
    assert not listed.contact.reachable
    assert listed.contact.unreachable is (status == "UNREACHABLE")


@pytest.mark.parametrize("address", ["-none-", "(null)", "(Unspecified)", "0.0.0.0", "pbx.example"])
def test_a_peer_without_an_address_is_ignored(address: str) -> None:
    """A peer that has not registered has no address."""
    assert entries("SIPpeers", item(rosters.SIP_PEER, IPaddress=address)) == ()


def test_a_registration_leads_to_its_server_and_to_its_proxy() -> None:
    """Both send to this PBX; the port is set only if it is named."""
    server = TrunkHost("pbx", Service.PJSIP, "named", "sip.carrier.example", None, Transport.TLS)
    proxy = TrunkHost("pbx", Service.PJSIP, "named", "192.0.2.9", 5070, Transport.UDP)

    assert entries("PJSIPShowRegistrationsOutbound", item(rosters.REGISTRATION)) == (server,)
    assert entries(
        "PJSIPShowRegistrationsOutbound", item(rosters.REGISTRATION, OutboundProxy="sip:192.0.2.9:5070;lr")
    ) == (server, proxy)


@pytest.mark.parametrize(
    ("action", "recorded", "expected"),
    [
        (
            "SIPshowregistry",
            rosters.SIP_REGISTRY,
            TrunkHost(
                "pbx", Service.SIP, "me@sip.other.example", "sip.other.example", None, Transport.UNKNOWN
            ),
        ),
        (
            "IAXregistry",
            rosters.IAX_REGISTRY,
            TrunkHost("pbx", Service.IAX2, "me@198.18.1.55", "198.18.1.55", 4569, Transport.UNKNOWN),
        ),
    ],
)
def test_a_registry(action: str, recorded: bytes, expected: TrunkHost) -> None:
    """A default port may not be configured, and then SRV records decide: it is left out."""
    assert entries(action, item(recorded)) == (expected,)


def test_a_registry_without_a_host_is_ignored() -> None:
    """An empty host gives no trunk."""
    assert entries("SIPshowregistry", item(rosters.SIP_REGISTRY, Host="<>")) == ()


def test_the_questions_for_each_release() -> None:
    """Only actions that are listed for this user are used."""
    asked = {release: plan_questions(commands) for release, commands in GRANTED.items()}

    assert [one.action for one in asked[22].contacts] == ["DBGetTree"]
    assert [one.action for one in asked[16].contacts] == ["DBGetTree", "SIPpeers"]
    assert [one.action for one in asked[22].trunks] == ["PJSIPShowRegistrationsOutbound"]
    assert [one.action for one in asked[16].trunks] == ["PJSIPShowRegistrationsOutbound", "SIPshowregistry"]
    assert not any(plan.refused or plan.unlisted for plan in asked.values())


def test_the_better_list_of_contacts_is_asked_alone() -> None:
    """A user who may ask for reachability does so, and does not query the database as well."""
    assert [one.action for one in plan_questions(EVERYTHING).contacts] == [
        "PJSIPShowContacts",
        "SIPpeers",
        "IAXpeerlist",
    ]


def test_the_questions_of_a_user_without_a_right() -> None:
    """Without reporting nothing is asked; with it, an Asterisk without lists of contacts is reported."""
    nothing = plan_questions(["Ping", "ListCommands", "Login", "Events"])
    old = plan_questions(["CoreStatus", "SIPpeers", "PJSIPShowRegistrationsOutbound"])

    assert (nothing.contacts, nothing.trunks, nothing.refused) == ((), (), True)
    assert ([one.action for one in old.contacts], old.refused, old.unlisted) == (["SIPpeers"], False, True)


@pytest.mark.parametrize(
    "packet", [b"", b"Event", b"Event: ", b"Event: A\r\nEvent: B", b"Response: x", b"\r\n"]
)
def test_other_packets_are_no_event(packet: bytes) -> None:
    """Without a name, or with two, no event is returned."""
    assert parse_roster_event(packet) is None


@pytest.mark.parametrize(
    "message",
    ["No Contacts found\n", "No endpoints found", "no AORs found.\r\n", "No peers", "No Registrations"],
)
def test_an_error_may_mean_an_empty_list(message: str) -> None:
    """Asterisk's errors in place of an empty list are known, with and without a newline."""
    assert means_empty(message)


@pytest.mark.parametrize(
    "message",
    [
        "",
        "No",
        "found",
        "No such command",
        "No luck found",
        "Permission denied\n",
        "No peers for you",
        "Peers",
    ],
)
def test_any_other_error_is_no_empty_list(message: str) -> None:
    """After another error the list is unknown: no phone may count as gone."""
    assert not means_empty(message)


def test_a_long_event_is_refused() -> None:
    """At most 8 KiB are parsed, so that the memory for many phones is bounded."""
    head = b"Event: ContactStatus\r\nURI: "
    longest = head + b"x" * (8192 - len(head))

    assert parse_roster_event(longest) is not None
    assert parse_roster_event(longest + b"x") is None


VALUES = st.text(max_size=20) | st.sampled_from(
    [
        "sip:x@203.0.113.9",
        "sip:[",
        "{",
        "[" * 2000,
        '{"uri":1}',
        "OK (1 ms)",
        "198.18.1.10",
        "\x00",
        "9" * 400,
    ]
)


@given(
    st.sampled_from(EVERYTHING[1:]),
    st.dictionaries(
        st.sampled_from(
            [
                *("Val", "Key", "Uri", "Endpoint", "ObjectName", "Path", "Status", "ExpirationTime"),
                *("IPaddress", "Host", "Port", "Username", "Domain", "ServerUri", "OutboundProxy"),
            ]
        ),
        VALUES,
    ),
)
@settings(deadline=None, max_examples=5 * settings().max_examples)
def test_no_entry_raises(action: str, headers: dict[str, str]) -> None:
    """Any entry gives contacts or trunks, or nothing."""
    found = question(action).parse(Headers(headers), "pbx")
    assert all(isinstance(one, ListedContact | TrunkHost) for one in found)


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=3 * settings().max_examples)
def test_no_packet_raises(packet: bytes) -> None:
    """Any bytes give an event with its headers, or None."""
    found = parse_roster_event(b"Event: ContactStatus\r\n" + packet)
    assert found is None or found.name == "ContactStatus"


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000])
def test_a_contact_that_is_no_object_is_none(text: str) -> None:
    """A value of Asterisk's database that is no JSON, no object, or nested too deeply lists no phone."""
    recorded = item(rosters.TREE)
    event = RosterEvent(recorded.name, recorded.action, {**recorded.headers, "Val": text})
    assert entries("DBGetTree", event) == ()


@pytest.mark.parametrize(
    ("module", "status", "reads"),
    [
        (b"All", b"0", True),
        (b"res_pjsip.so", b"0", True),
        (b"chan_sip.so", b"0", True),
        (b"chan_sip.so", b"1", False),
        (b"app_queue.so", b"0", False),
    ],
)
def test_a_reload_of_accounts(module: bytes, status: bytes, *, reads: bool) -> None:
    """Only a reload that worked, of a SIP module or of all, makes Asterisk read its accounts again."""
    packet = b"Event: Reload\r\nPrivilege: system,all\r\nModule: %b\r\nStatus: %b" % (module, status)
    event = parse_roster_event(packet)
    assert event is not None
    assert reloads_accounts(event) is reads
    assert not reloads_accounts(evolve(event, name="ContactStatus"))
