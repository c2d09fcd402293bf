"""Lists of phones and trunks: what real Asterisks said, and what a hostile phone may have made of it."""

import json
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse import rosters
from tests.parse.rosters import item

from ringfence.model import Contact, Service, Transport, TrunkHost
from ringfence.parse.roster import Entry, Item, Listed, Question, item_of, plan_of

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
    """Give the question of that action."""
    commands = [command for command in EVERYTHING if command not in ("DBGetTree", "PJSIPShowContacts")]
    plan = plan_of([*commands, action])
    return next(one for one in (*plan.contacts, *plan.trunks) if one.action == action)


def entries(action: str, told: Item) -> tuple[Entry, ...]:
    """Read an entry of an action's list."""
    asked = question(action)
    assert told.name == asked.entry
    return asked.read(told.headers, "pbx")


def contact(service: Service, account: str, address: str, **more: float | bool | None) -> Contact:
    """Give a contact of the PBX."""
    return Contact("pbx", service, account, ip_address(address), **more)  # type: ignore[arg-type]


def tree(**values: object) -> Item:
    """Give a contact of Asterisk's database with other values."""
    recorded = item(rosters.TREE)
    kept = json.loads(recorded.headers["Val"]) | values
    return Item(recorded.name, recorded.action, {**recorded.headers, "Val": json.dumps(kept)})


def test_a_contact_of_asterisks_database() -> None:
    """Account, address and end are those of the contact; whether it can be reached is not told."""
    phone = contact(Service.PJSIP, "alice", "198.18.1.10", until=1795193107.0)

    assert entries("DBGetTree", item(rosters.TREE)) == (
        Listed(phone, "sip:alice@198.18.1.10:53733", tells=False),
    )


def test_a_contact_that_is_listed_with_its_status() -> None:
    """Who answers lately is reachable, by Asterisk's own word and no other."""
    phone = contact(Service.PJSIP, "carol", "198.18.1.13", until=1795193477.0, reachable=True)
    uri = "sip:carol@198.18.1.13:57925;x-ast-orig-host=10.0.0.5:5060"

    assert entries("PJSIPShowContacts", item(rosters.CONTACT_LIST)) == (Listed(phone, uri),)
    for status in ("NonQualified", "Unreachable", "Unknown", "reachable", "Reachable "):
        (listed,) = entries("PJSIPShowContacts", item(rosters.CONTACT_LIST, Status=status))
        assert isinstance(listed, Listed)
        assert not listed.contact.reachable


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
def test_a_contact_that_leads_elsewhere_is_passed_over(values: dict[str, object]) -> None:
    """A name, a second reading, a path through a proxy, or nothing: no address comes of it."""
    assert entries("DBGetTree", tree(**values)) == ()


def test_what_a_phone_claims_beside_its_contact_gives_no_address() -> None:
    """Neither where its Via says it is, nor what its name of itself holds."""
    claims = {
        "via_addr": "203.0.113.9",
        "user_agent": 'x","uri":"sip:x@203.0.113.9',
        "call_id": "203.0.113.9",
    }
    (listed,) = entries("DBGetTree", tree(**claims))

    assert isinstance(listed, Listed)
    assert listed.contact.address == ip_address("198.18.1.10")


@pytest.mark.parametrize(
    ("said", "until"),
    [("1795193107", 1795193107.0), ("0", None), ("", None), ("-1", None), ("1e9", None), ("9" * 40, None)],
)
def test_an_end_is_a_time(said: str, until: float | None) -> None:
    """What is no time, and the 0 of a contact without an end, are none."""
    (listed,) = entries("DBGetTree", tree(expiration_time=said))

    assert isinstance(listed, Listed)
    assert listed.contact.until == until


def test_where_no_endpoint_stands_the_key_names_the_account() -> None:
    """The AOR's name, from which the contact's hash is cut off."""
    (listed,) = entries("DBGetTree", tree(endpoint=""))

    assert isinstance(listed, Listed)
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
    """A peer is where Asterisk sends to it; who answers in time there, or a challenge, is reachable."""
    assert entries(action, item(recorded)) == (Listed(expected),)


@pytest.mark.parametrize(
    "status", ["Unmonitored", "UNREACHABLE", "UNKNOWN", "LAGGED (2500 ms)", "OK", "ok (1 ms)"]
)
def test_a_peer_that_does_not_answer_is_not_reachable(status: str) -> None:
    """Every other word than an answer in time leaves it where it says that it is."""
    (listed,) = entries("SIPpeers", item(rosters.SIP_PEER, Status=status))

    assert isinstance(listed, Listed)
    assert not listed.contact.reachable


@pytest.mark.parametrize("address", ["-none-", "(null)", "(Unspecified)", "0.0.0.0", "pbx.example"])
def test_a_peer_that_is_nowhere_is_passed_over(address: str) -> None:
    """Who has not registered has no address."""
    assert entries("SIPpeers", item(rosters.SIP_PEER, IPaddress=address)) == ()


def test_a_registration_leads_to_its_server_and_to_its_proxy() -> None:
    """Both send to this PBX; the port is told only where it is named."""
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
    """A default port may be one that nobody named, and then SRV records decide: it is not told."""
    assert entries(action, item(recorded)) == (expected,)


def test_a_registry_without_a_host_is_passed_over() -> None:
    """Nothing leads nowhere."""
    assert entries("SIPshowregistry", item(rosters.SIP_REGISTRY, Host="<>")) == ()


def test_what_is_asked_of_each_release() -> None:
    """Only actions that are listed for this user are asked for."""
    asked = {release: plan_of(commands) for release, commands in GRANTED.items()}

    assert [one.action for one in asked[22].contacts] == ["DBGetTree"]
    assert [one.action for one in asked[16].contacts] == ["DBGetTree", "SIPpeers"]
    assert [one.action for one in asked[22].trunks] == ["PJSIPShowRegistrationsOutbound"]
    assert [one.action for one in asked[16].trunks] == ["PJSIPShowRegistrationsOutbound", "SIPshowregistry"]
    assert not any(plan.refused or plan.unlisted for plan in asked.values())


def test_the_better_list_of_contacts_is_asked_alone() -> None:
    """Who may ask who can be reached asks that, and not the database as well."""
    assert [one.action for one in plan_of(EVERYTHING).contacts] == [
        "PJSIPShowContacts",
        "SIPpeers",
        "IAXpeerlist",
    ]


def test_what_a_user_without_a_right_cannot_ask() -> None:
    """Without reporting nothing is asked; with it, an Asterisk that lists no contacts of PJSIP's says so."""
    nothing = plan_of(["Ping", "ListCommands", "Login", "Events"])
    old = plan_of(["CoreStatus", "SIPpeers", "PJSIPShowRegistrationsOutbound"])

    assert (nothing.contacts, nothing.trunks, nothing.refused) == ((), (), True)
    assert ([one.action for one in old.contacts], old.refused, old.unlisted) == (["SIPpeers"], False, True)


@pytest.mark.parametrize(
    "packet", [b"", b"Event", b"Event: ", b"Event: A\r\nEvent: B", b"Response: x", b"\r\n"]
)
def test_what_is_no_event_is_none(packet: bytes) -> None:
    """Without a name, or with two, nothing is read."""
    assert item_of(packet) is None


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
@settings(deadline=None, max_examples=500)
def test_no_entry_raises(action: str, headers: dict[str, str]) -> None:
    """Whatever an entry holds, it gives contacts or trunks, or nothing."""
    assert all(isinstance(one, Listed | TrunkHost) for one in question(action).read(headers, "pbx"))


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=300)
def test_no_packet_raises(packet: bytes) -> None:
    """Any bytes are an event by its headers, or nothing."""
    found = item_of(b"Event: ContactStatus\r\n" + packet)
    assert found is None or found.name == "ContactStatus"
