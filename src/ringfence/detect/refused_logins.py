"""Logins whose requests Asterisk refuses after all: they make no friend.

PJSIP reports a right password before it handles the request. Then it may refuse it: the account has no such
AOR, or too many contacts, or the dialplan forbids the call. A person with a password could so make any number
of addresses friends, without a registration that an administrator sees. The refusal is another security event
with the same Call-ID, or a 403 on the wire, which may be read before the event of the login.

    SuccessfulAuth, then FailedACL registrar_attempt_exceeds_maximum_configured_contacts    no friend
    403 on the wire, then SuccessfulAuth                                                    no friend

A login at an address where the account works anyway is not undone. A busy machine reads AMI some seconds
late, so only the times of the events themselves show which refusal belongs to a login. Bounds: ``MOST``
logins and as many refusals, the oldest are forgotten first. Times are seconds since the epoch.
"""

from collections import OrderedDict
from math import inf

from ringfence.detect.friends import Friends
from ringfence.detect.sessions import remember
from ringfence.values.event import AMI, EventKind, SecurityEvent, Service
from ringfence.values.friend import Friend
from ringfence.values.network import Address

MOST = 1_024
WITHIN = 2.0
"""Maximum seconds between a login and the refusal of its request."""

LATE_REFUSALS = frozenset({EventKind.FAILED_ACL, EventKind.REQUEST_NOT_SUPPORTED})
"""The kinds of events by which PJSIP may report that it refuses a request with a right password."""

_REGISTRAR = "registrar_"


def is_refused_login(event: SecurityEvent) -> bool:
    """Whether AMI reports that PJSIP refuses a request with a right password.

    ``event`` is of one of the kinds of :data:`LATE_REFUSALS`. PJSIP's registrar reports them only after the
    login (``res/res_pjsip_registrar.c``).
    """
    if event.source.name != AMI or event.service is not Service.PJSIP or event.tampered:
        return False
    return event.kind is EventKind.REQUEST_NOT_SUPPORTED or event.acl_name.startswith(_REGISTRAR)


class RefusedLogins:
    """The latest logins that made a friend, and refusals of their requests, by address and Call-ID."""

    def __init__(self, friends: Friends) -> None:
        self._friends = friends
        self._logins: OrderedDict[tuple[Address, bytes], tuple[float, Friend]] = OrderedDict()
        self._refused: OrderedDict[tuple[Address, bytes], float] = OrderedDict()

    def permit(self, friend: Friend, session: bytes, at: float) -> bool:
        """Record a login at ``at`` with the Call-ID ``session``; return whether it may make a friend.

        It may if its account worked there before, or if the latest refusal was at least ``WITHIN`` seconds
        before it. Earlier refusals are not remembered. So a login before the latest one makes no friend.
        """
        if self._friends.worked_near(friend.account, friend.address):
            return True
        key = friend.address, session
        if at - self._refused.get(key, -inf) < WITHIN:
            return False
        remember(self._logins, key, (at, friend), MOST)
        return True

    def refuse(self, address: Address, session: bytes, at: float) -> Friend | None:
        """Record a refusal, at ``at``, of a request of ``address`` with the Call-ID ``session``.

        Return the friend that a login with both made, less than ``WITHIN`` seconds before, or None.
        """
        key = address, session
        remember(self._refused, key, at, MOST)
        since, friend = self._logins.pop(key, (-inf, None))
        return friend if at - since < WITHIN else None
