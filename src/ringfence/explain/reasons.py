"""Why attempts failed, in plain words."""

from ringfence.model import Attempt, AttemptKind, EventKind, Service

_BY_EVENT = {
    EventKind.CHALLENGE_RESPONSE_FAILED: "wrong password",
    EventKind.INVALID_PASSWORD: "wrong password",
    EventKind.INVALID_ACCOUNT_ID: "no such account",
    EventKind.FAILED_ACL: "ACL",
    EventKind.INVALID_TRANSPORT: "wrong transport",
    EventKind.HIDDEN: "hidden",
    EventKind.LIMITED: "flood",
}


def reason_of(attempt: Attempt) -> str:
    """Return why Asterisk refused an attempt, in two or three words.

    PJSIP also reports an account with a wrong password as ``ChallengeResponseFailed``, and an unknown one as
    ``InvalidAccountID``. A refused call reports an ACL named ``no_extension_match``.
    """
    if attempt.kind is AttemptKind.PROBE:
        return "unknown caller" if attempt.service is Service.DIALPLAN else "unknown extension"
    return _BY_EVENT.get(attempt.event, str(attempt.event))
