"""Logins whose requests Asterisk refuses after all."""

from collections.abc import Iterable

import pytest
from attrs import evolve
from tests.detect.events import NOTICES, event
from tests.detect.transcripts.reports import PHONE, friend, login, report, sent
from tests.support.transcript import Player, at

from ringfence.detect import refused_logins
from ringfence.detect.friends import Friends
from ringfence.detect.refused_logins import RefusedLogins, is_refused_login
from ringfence.values.event import EventKind, SecurityEvent, Service

CONTACTS = "registrar_attempt_exceeds_maximum_configured_contacts"
NO_AOR = report(EventKind.REQUEST_NOT_SUPPORTED, PHONE)
TOO_MANY = evolve(report(EventKind.FAILED_ACL, PHONE), acl_name=CONTACTS)
FORBIDDEN = sent(PHONE, status=403)


@pytest.mark.parametrize("refusal", [NO_AOR, TOO_MANY, FORBIDDEN], ids=["aor", "contacts", "403"])
def test_a_login_that_asterisk_refuses_makes_no_friend(refusal: SecurityEvent) -> None:
    """The refusal follows the login, by AMI or on the wire, and ends what the login has made."""
    guard = Player()
    guard.play(at(0, login()))
    assert guard.is_friend(PHONE)
    guard.play(at(0.1, refusal))
    assert not guard.is_friend(PHONE)
    guard.play(at(1, login(call=b"another")))
    assert guard.is_friend(PHONE)


def test_a_refusal_may_be_read_before_its_login() -> None:
    """The wire may be faster than AMI; two seconds later the refusal does not concern a login."""
    guard = Player()
    guard.play(at(0, FORBIDDEN), at(0.1, login()))
    assert not guard.is_friend(PHONE)
    guard.play(at(2.1, login()))
    assert guard.is_friend(PHONE)


@pytest.mark.parametrize(
    "steps",
    [
        [at(0, login()), at(2.1, NO_AOR)],
        [at(0, login()), at(0.1, sent(PHONE, b"another", status=403), sent(PHONE, status=401))],
        [at(0, friend()), at(1, login()), at(1.1, NO_AOR)],
    ],
    ids=["late", "another request", "where it works"],
)
def test_what_refuses_no_login(steps: Iterable[object]) -> None:
    """A refusal much later, one of another request, and one where the account works end no friendship."""
    guard = Player()
    guard.play(*steps)  # type: ignore[arg-type]
    assert guard.is_friend(PHONE)


@pytest.mark.parametrize(
    ("steps", "is_friend"),
    [
        ([at(0, FORBIDDEN), at(3, login(late=3.0))], False),
        ([at(0, FORBIDDEN), at(3, FORBIDDEN), at(5, login(late=5.0))], False),
        ([at(5, login(late=5.0)), at(6, FORBIDDEN)], True),
    ],
    ids=["late", "refused again", "a call that the callee rejects"],
)
def test_a_login_and_its_refusal_have_their_own_times(steps: Iterable[object], *, is_friend: bool) -> None:
    """A busy machine reads a login some seconds late: when it happened decides, and not when it is read."""
    guard = Player()
    guard.play(*steps)  # type: ignore[arg-type]
    assert guard.is_friend(PHONE) is is_friend


@pytest.mark.parametrize(
    "other",
    [
        event(EventKind.REQUEST_NOT_SUPPORTED, source=NOTICES),
        event(EventKind.REQUEST_NOT_SUPPORTED, service=Service.SIP),
        event(EventKind.REQUEST_NOT_SUPPORTED, tampered=True),
        event(EventKind.FAILED_ACL, acl_name="no_extension_match"),
        event(EventKind.CHALLENGE_SENT),
    ],
)
def test_other_events_refuse_no_login(other: SecurityEvent) -> None:
    """Only AMI's events about a request with a right password do."""
    assert not is_refused_login(other)
    assert is_refused_login(event(EventKind.REQUEST_NOT_SUPPORTED))


def test_the_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound, the oldest login is forgotten."""
    monkeypatch.setattr(refused_logins, "MOST", 1)
    logins = RefusedLogins(Friends())
    one = friend()
    assert all(logins.permit(one, call, 0.0) for call in (b"1", b"2"))
    assert [logins.refuse(one.address, call, 0.1) for call in (b"1", b"2")] == [None, one]
