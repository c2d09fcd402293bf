"""Explanations of unconfirmed attempts: the source of the address, and what could confirm it.

:mod:`ringfence.detect.attribution` decides what is unconfirmed. These sentences are for the administrator.
"""

from ringfence.model import AMI, WIRE, Attempt, Service

_NOTHING_ELSE = {Service.IAX2: "IAX2", Service.DIALPLAN: "the dialplan"}


def why_unconfirmed(attempt: Attempt) -> str:
    """Return why an attempt that is not ``trusted`` leads to no ban."""
    if attempt.service in _NOTHING_ELSE:
        part = _NOTHING_ELSE[attempt.service]
        return (
            f"only the log reports {part}, and a sender can have Asterisk write such a line with any address"
        )
    if WIRE in attempt.sources:
        return "what the wire sees by TCP may be a text of another sender, within a message to this phone"
    if AMI not in attempt.sources:
        return (
            "only the log names this address, and a sender can have Asterisk write such a line: neither AMI "
            "nor the wire nor a TCP connection confirms it"
        )
    if attempt.service is Service.SIP:
        return (
            "chan_sip's events name whatever address a Via header gives: neither the wire ([asterisk.wire]) "
            "nor a log line nor a TCP connection confirms this one"
        )
    return "AMI alone names this address, in an event that a sender can forge, and nothing confirms it"
