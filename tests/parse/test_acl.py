"""Lines of acl.c: the address in them, and that the detector does not count them (the corpus has acl.txt)."""

import pytest
from tests.parse.corpus import SOURCE

from ringfence.detect.sessions import Role, role_of
from ringfence.parse.notices import parse_acl
from ringfence.values.event import SecurityEvent

CALLERS = (b"SIP ACL: ", b"SIP Peer ACL: ", b"IAX2 user ACL: ", b"IAX2 Peer ACL: ", b"Manager User ACL: ")


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("name", [b"", b"no_extension_match", b"not_match_endpoint_acl", b"peer_not_dynamic"])
def test_an_acl_of_any_name_is_no_attempt(caller: bytes, name: bytes) -> None:
    """Another line reports the same, so this line causes no attempt, whatever the list's name is."""
    result = parse_acl(
        caller + b"Rejecting '192.0.2.7' due to a failure to pass ACL '" + name + b"'", SOURCE, 0.0
    )
    assert isinstance(result, SecurityEvent)
    assert str(result.remote.address) == "192.0.2.7"
    assert role_of(result) is Role.NONE
