"""What is said of many at once: that an account is besieged, and that addresses are forged."""

from math import inf

from ringfence.model import Notice, printable

SIEGE, SPOOFING = "siege", "spoofing"


def siege(asterisk: str, account: str) -> Notice:
    """Say that many addresses try one account."""
    text = (
        f"many addresses try the password of {printable(account)}: while it lasts, a stranger's second "
        "failure on it is a ban"
    )
    return Notice(SIEGE, _name(asterisk, account), text, lasts=inf)


def siege_over(asterisk: str, account: str) -> Notice:
    """Say that they do no longer."""
    return Notice(SIEGE, _name(asterisk, account), "", over=True)


def spoofing(most: int) -> Notice:
    """Say that more than so many new addresses a minute only claim to be."""
    return Notice(SPOOFING, "", _SPOOFING.format(most=most))


def _name(asterisk: str, account: str) -> str:
    return f"{printable(account)} of {asterisk}"


_SPOOFING = (
    "somebody sends with forged addresses: more than {most} new ones a minute reached a rule's number, and "
    "none of them shows that it is more than a name on a packet. Only those that come back are banned for "
    "now; who proves his address is judged as ever"
)
