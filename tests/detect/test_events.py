"""The findings from one event alone: its role, and the proof of its address."""

import pytest
from attrs import evolve
from tests.detect.events import NOTICES, PBX, ROLES, SECURITY, event

from ringfence.detect.sessions import Role, is_trusted, proof_of, role_of
from ringfence.values.attempt import Proof
from ringfence.values.event import WIRE, EventKind, SecurityEvent, Service, SourceId, Transport


@pytest.mark.parametrize("forgeable", [False, True])
@pytest.mark.parametrize("service", Service)
@pytest.mark.parametrize("source", [PBX, NOTICES])
def test_only_what_no_header_decides_is_trusted(
    service: Service, source: SourceId, *, forgeable: bool
) -> None:
    """A log line is trusted, also one of chan_sip, unless the sender could have written its words."""
    told = evolve(event(EventKind.INVALID_PASSWORD, service=service, source=source), forgeable=forgeable)
    aimed = service is Service.SIP and source is PBX

    assert is_trusted(told) is not (forgeable or aimed)


@pytest.mark.parametrize(
    ("service", "transport", "proof"),
    [
        (Service.PJSIP, Transport.UDP, Proof.CLAIMED),
        (Service.PJSIP, Transport.UNKNOWN, Proof.CLAIMED),
        (Service.PJSIP, Transport.TCP, Proof.HANDSHAKE),
        (Service.PJSIP, Transport.TLS, Proof.HANDSHAKE),
        (Service.PJSIP, Transport.WS, Proof.HANDSHAKE),
        (Service.PJSIP, Transport.WSS, Proof.HANDSHAKE),
        (Service.SIP, Transport.TCP, Proof.CLAIMED),
        (Service.SIP, Transport.TLS, Proof.CLAIMED),
        (Service.SIP, Transport.UDP, Proof.CLAIMED),
        (Service.AMI, Transport.TCP, Proof.HANDSHAKE),
    ],
)
def test_a_handshake_proves_an_address_except_under_chan_sip(
    service: Service, transport: Transport, proof: Proof
) -> None:
    """PJSIP over anything but UDP, and AMI, prove the address by a handshake; chan_sip does not."""
    told = event(EventKind.INVALID_PASSWORD, service=service, transport=transport)
    assert proof_of(told) is proof


_BY_TLS = event(EventKind.INVALID_PASSWORD, transport=Transport.TLS)


@pytest.mark.parametrize("service", [Service.PJSIP, Service.AMI])
@pytest.mark.parametrize(
    "forgeable",
    [
        evolve(_BY_TLS, source=NOTICES),
        evolve(_BY_TLS, source=SECURITY),
        evolve(_BY_TLS, tampered=True),
        evolve(_BY_TLS, forgeable=True),
    ],
    ids=["notice", "security", "tampered", "forgeable"],
)
def test_text_never_proves_an_address(service: Service, forgeable: SecurityEvent) -> None:
    """A log line over TLS, a tampered packet, and an AMI event that HTTP can forge are only claims."""
    assert proof_of(evolve(forgeable, service=service)) is Proof.CLAIMED


@pytest.mark.parametrize("service", [Service.PJSIP, Service.SIP])
def test_an_answer_by_tcp_proves_an_address(service: Service) -> None:
    """An answer by TCP proves its receiver, because the kernel completed a handshake with it."""
    told = event(EventKind.HIDDEN, service=service, transport=Transport.TCP, source=SourceId("pbx", WIRE))
    assert proof_of(told) is Proof.HANDSHAKE


ACLS = {acl for _, _, acl in ROLES} | {"registrar_invalid_contacts_provided"}


@pytest.mark.parametrize("service", Service)
@pytest.mark.parametrize("kind", EventKind)
def test_every_event_has_the_part_that_the_table_gives_it(service: Service, kind: EventKind) -> None:
    """An event that the table does not name has no role, and a tampered success has none."""
    for acl in ACLS if kind is EventKind.FAILED_ACL else {""}:
        told = event(kind, service=service, acl_name=acl)
        own = service is Service.DIALPLAN and kind is EventKind.FAILED_ACL  # the administrator's own line
        role = ROLES.get((service, kind, acl), Role.FAILED if own else Role.NONE)
        assert role_of(told) is role
        assert role_of(evolve(told, tampered=True)) is (Role.NONE if role is Role.SUCCESS else role)


@pytest.mark.parametrize("service", [Service.PJSIP, Service.SIP])
@pytest.mark.parametrize(
    ("account", "role"),
    [
        ("", Role.PROBE),
        ("anonymous", Role.PROBE),
        ("anonymous@a.example", Role.PROBE),
        ("alice", Role.NONE),
    ],
    ids=str,
)
def test_a_caller_with_an_account_has_misdialled(service: Service, account: str, role: Role) -> None:
    """A line is no probe if it names an account which called an extension that does not exist."""
    told = event(
        EventKind.FAILED_ACL,
        service=service,
        source=NOTICES,
        account=account,
        acl_name="no_extension_match",
        session=b"",
    )
    assert role_of(told) is role
