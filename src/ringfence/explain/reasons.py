"""Words for the reasons why Asterisk refused attempts."""

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
    """Return in two or three words why Asterisk refused an attempt.

    Most reasons follow from the kind of the event. For example, PJSIP reports a wrong password as
    ``ChallengeResponseFailed``. For a kind without a reason in the table, return the name of the kind.
    """
    if attempt.kind is AttemptKind.PROBE:
        return "unknown caller" if attempt.service is Service.DIALPLAN else "unknown extension"
    return _BY_EVENT.get(attempt.event, str(attempt.event))
