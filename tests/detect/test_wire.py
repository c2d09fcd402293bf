"""The wire's memory: it accepts logins that AMI reports, and none from text."""

from ipaddress import ip_address

import pytest
from attrs import evolve
from tests.detect.events import NOTICES, PBX, SECURITY, SENDER, event

from ringfence.detect.wire import Wire
from ringfence.model import Challenge, EventKind, Service, SourceId

BY = ip_address(SENDER)
ASKED = Challenge(BY, 5062, ip_address("198.18.0.1"), 5060, b"call-1", b"n", BY, service=Service.SIP)


@pytest.mark.parametrize(("source", "believed"), [(PBX, True), (SECURITY, False), (NOTICES, False)])
def test_only_ami_reports_a_login(source: SourceId, *, believed: bool) -> None:
    """A line that its sender wrote must not hide a guess, and neither must a packet outside the grammar."""
    for tampered in (False, True):
        wire = Wire()
        wire.answers.record(ASKED, BY, 0.0)
        login = event(EventKind.SUCCESSFUL_AUTH, service=Service.SIP, source=source, tampered=tampered)
        wire.record_event(login, 0.0)
        refused = wire.answers.record(evolve(ASKED, status=403, nonce=b""), BY, 0.0)
        assert refused is not (believed and not tampered)
