"""The reports of Asterisk in the scenarios are those of a real one (tests/captures)."""

from ipaddress import ip_address

import pytest
from tests.scenarios.asterisk import Act, tell
from tests.scenarios.deeds import Deed, Verb
from tests.scenarios.language import read
from tests.support.captures import capture

from ringfence.parse.ami import AmiDecoder
from ringfence.parse.log import LogReader
from ringfence.values.event import AMI, EventKind, SecurityEvent, Service, SourceId, Transport
from ringfence.values.packet import CopiedAnswer, CopiedRequest

Shape = tuple[Service, EventKind, Transport, str, str, bool, bool, bool]


def shape(event: SecurityEvent) -> Shape:
    """Return the parts of an event that do not change from one time to the next."""
    account = event.account if event.account in ("<unknown>", "anonymous", "") else "somebody"
    return (
        event.service,
        event.kind,
        event.remote.transport,
        account,
        event.acl_name,
        bool(event.challenge),
        bool(event.response),
        event.password,
    )


def recorded(group: str, name: str) -> tuple[list[Shape], list[Shape]]:
    """Return what AMI and the NOTICE lines of a recording report of the first action in it."""
    ami = AmiDecoder(SourceId("pbx", AMI))
    ami.receive(b"Asterisk Call Manager/11.0.0\r\n", 0.0)
    one = capture(group, name)
    heard = [*ami.receive(one.ami.read_bytes(), 0.0), *ami.tick(9.0)]
    events = [event for event in heard if isinstance(event, SecurityEvent)]
    log = LogReader(SourceId("pbx", "log:full"))
    readings = [*log.receive(one.messages_log.read_bytes(), 0.0), *log.end(0.0)]
    notices = [reading.event for reading in readings if reading.event is not None]
    notices = [event for event in notices if not event.acl_name.startswith("acl:")]
    first = (events or notices)[0].session
    same = [event for event in events if event.session == first]
    lines = [event for event in notices if not event.session or event.session == first]
    return [shape(event) for event in same], [shape(event) for event in lines]


def played(deed: Deed, *, exists: bool) -> tuple[list[Shape], list[Shape]]:
    """Return what AMI and the NOTICE lines report of an action in a scenario."""
    act = Act(deed, ip_address("203.0.113.5"), "204" if deed.accounts else "", exists, 0.0, 1)
    told = [one for one in tell(act, ("AMI", "log", "wire")) if isinstance(one, SecurityEvent)]
    return (
        [shape(event) for event in told if event.source.name == AMI],
        [shape(event) for event in told if event.source.notices],
    )


SIP = Service.SIP
FAILS = Deed(Verb.FAILS, accounts=("204",))


@pytest.mark.parametrize(
    ("group", "name", "deed", "exists"),
    [
        ("asterisk-22", "wrong-password-register", FAILS, True),
        ("asterisk-22", "wrong-password-tcp", Deed(Verb.FAILS, (), ("204",), transport=Transport.TCP), True),
        ("asterisk-22", "unknown-account-register", FAILS, False),
        ("asterisk-22", "unknown-account-no-auth", Deed(Verb.SCANS, accounts=("204",)), False),
        ("hostile-22", "known-probe", Deed(Verb.SCANS, accounts=("204",)), True),
        ("asterisk-22", "good-register", Deed(Verb.REGISTERS, accounts=("204",)), True),
        ("asterisk-22", "unknown-extension-by-known-phone", Deed(Verb.CALLS, accounts=("204",)), True),
        ("asterisk-22", "call-id-not-utf8", Deed(Verb.HIDES, accounts=("204",)), True),
        ("asterisk-16", "chan-sip-wrong-password", Deed(Verb.FAILS, (), ("204",), SIP), True),
        ("asterisk-16", "chan-sip-unknown-account", Deed(Verb.FAILS, (), ("204",), SIP), False),
        ("asterisk-16", "chan-sip-good-register", Deed(Verb.REGISTERS, (), ("204",), SIP), True),
        ("asterisk-16", "chan-sip-guest-invite", Deed(Verb.CALLS, service=SIP), False),
        ("hostile-16", "cs-known-misdial", Deed(Verb.CALLS, (), ("204",), SIP), True),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_it_reports_as_a_real_asterisk(group: str, name: str, deed: Deed, exists: bool) -> None:  # noqa: FBT001
    """The events are the same, in the same order, of the same accounts, with a digest where there was one."""
    events, lines = recorded(group, name)
    said, notices = played(deed, exists=exists)
    assert said == events
    assert notices == lines[: len(notices)]
    assert bool(notices) is bool(lines)


def test_a_via_with_another_address_is_reported_as_by_a_real_asterisk() -> None:
    """The events name the address that a Via names, and the log and the wire name the true sender."""
    [step] = read("x", "10:00  203.0.113.5 fails as 204, by SIP, naming 192.0.2.9 in a Via").steps
    assert step.deed is not None
    act = Act(step.deed, step.deed.addresses[0], "204", exists=True, time=0.0, number=1)
    named = [
        str(one.sender) if isinstance(one, CopiedAnswer) else str(one.remote.address)
        for one in tell(act, ("AMI", "log", "wire"))
        if not isinstance(one, CopiedRequest)
    ]
    assert named == ["192.0.2.9", "203.0.113.5", "192.0.2.9", "192.0.2.9", "192.0.2.9", "203.0.113.5"]
