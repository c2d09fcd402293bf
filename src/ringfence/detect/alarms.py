"""Alarms of the detector: distributed attacks, forged addresses, and guesses that cannot be proven."""

from math import inf

from ringfence.alarm_codes import AlarmCode
from ringfence.model import Address, AlarmChange, printable

FORGED_BY_TEXT = (
    "its requests name {at} as their sender, by a Via header or a forged source address; they count as "
    "attempts of its own"
)


def distributed(asterisk: str, account: str) -> AlarmChange:
    """Return the alarm that many addresses try one account."""
    text = (
        f"many addresses try the password of {printable(account)}; until they stop, the second failure of a "
        "stranger on this account is a ban"
    )
    return AlarmChange(AlarmCode.ATTACK_DISTRIBUTED, _name(asterisk, account), text, lasts=inf)


def distributed_cleared(asterisk: str, account: str) -> AlarmChange:
    """Return the change that clears the alarm of :func:`distributed`."""
    return AlarmChange(AlarmCode.ATTACK_DISTRIBUTED, _name(asterisk, account), "", cleared=True)


def spoofing(most: int) -> AlarmChange:
    """Return the alarm that more than ``most`` new unproven addresses a minute reached a rule's threshold."""
    return AlarmChange(AlarmCode.ATTACK_SPOOFING, "", _SPOOFING.format(most=most))


def forged_by(address: Address, at: Address) -> AlarmChange:
    """Return the alarm that requests of ``address`` name ``at`` as their sender."""
    return AlarmChange(AlarmCode.EVIDENCE_FORGED_BY, str(address), FORGED_BY_TEXT.format(at=at))


def unprovable(address: Address, *, friend: bool) -> AlarmChange:
    """Return the alarm about guesses of ``address`` that nothing can prove.

    ``friend`` is whether the address is a friend, which is not banned for these guesses.
    """
    text = (
        "its guesses carry nonces that were also sent elsewhere, or that this host never sent by UDP, so "
        "nothing proves that they came from this address"
    )
    if friend:
        text += "; it is a friend and not banned for them, but the limiter no longer exempts it"
    return AlarmChange(AlarmCode.EVIDENCE_UNPROVABLE, str(address), text)


def _name(asterisk: str, account: str) -> str:
    return f"{printable(account)} of {asterisk}"


_SPOOFING = (
    "packets with forged source addresses arrive: more than {most} new addresses a minute reached the "
    "threshold of a rule, and none of them is proven. For now only those that return are banned; proven "
    "addresses are banned as usual"
)
