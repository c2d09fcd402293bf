"""Results of the detector: values about attempts and addresses, its counters, and the texts of its alarms."""

import enum
from math import inf

from attrs import Factory, define, frozen

from ringfence.alarm_codes import AlarmCode
from ringfence.detect.new_friends import MOST_A_DAY, MOST_AN_HOUR
from ringfence.detect.rules import DAY, HOUR, Rule
from ringfence.values import fast
from ringfence.values.alarm import AlarmChange
from ringfence.values.attempt import Attempt, AttemptKind, Proof
from ringfence.values.ban import Scope
from ringfence.values.friend import Friend
from ringfence.values.network import Address, Network, format_network
from ringfence.values.text import printable, rfc3339


@frozen
class Decision:
    """The decision to ban ``subject`` by ``rule``, because of ``attempts`` (oldest first).

    The ban begins at ``at``, the time of the last attempt (monotonic seconds), even if the attempt was read
    late. If attempts count late, it begins when the last of them counted. ``seconds`` is the duration of a
    ban on unproven evidence. None means the duration of the rule, which is longer for repeated bans.
    ``accounts`` is the number of existing accounts for which the subject had wrong passwords, as far as it
    was known at the decision; 0 for a ban on unproven evidence.
    """

    subject: Network
    rule: Rule
    attempts: tuple[Attempt, ...]
    at: float
    scope: Scope = Scope.FULL
    seconds: float | None = None
    accounts: int = 0


@frozen
class Count:
    """How many of a sender's attempts a rule counts now, and how many it needs for a ban.

    The rule needs ``number`` attempts. ``have`` is the number that count for it at present, ``proven`` the
    number of proven ones with credentials among these. ``ends`` is the time when the oldest attempt leaves
    the window (monotonic seconds), None without attempts. ``within`` is the window in seconds. (A rule may
    have several limits for friends, each with its own window.) An account of a friend counts at most
    ``each`` times (0: each attempt counts).
    """

    rule: Rule
    number: int
    have: int
    proven: int
    ends: float | None
    within: float
    each: int = 0


class Disposition(enum.StrEnum):
    """How the detector treated an attempt, such as counted, exempt, or of a banned address."""

    COUNTED = "counted"
    EXEMPT = "exempt"
    FRIEND = "friend"  # counted by the limits for friends
    UNCONFIRMED = "unconfirmed"  # its address may be forged: listed, bans nothing
    FORGED = "forged"  # its address sent nothing: not even listed
    LATE = "late"  # its sender is banned already
    NO_RULE = "no rule"  # no enabled rule counts its kind
    COUNTED_BEFORE = "counted before"  # an earlier attempt leads to a ban now, or to a further ban


@fast.frozen
class Judgement:
    """An attempt, its sender's network, how the attempt was treated, and the ban that follows, if any."""

    attempt: Attempt
    subject: Network
    disposition: Disposition
    decision: Decision | None = None


@frozen
class Login:
    """A login with a right password.

    ``befriends``: it makes its sender a friend (a known phone). Otherwise Asterisk refuses its request, or
    its account has too many new friends, or its address is not proven. ``proven``: it came from its address.
    Otherwise somebody with the password may have forged the address. ``guessed``: wrong passwords from its
    address came before, where its account never worked.
    """

    friend: Friend
    befriends: bool = True
    guessed: bool = False
    proven: bool = True


@frozen
class Observe:
    """The instruction that the kernel must copy the packets of a friend's address from now on."""

    address: Address


@frozen
class Estranged:
    """Reasons why an address was a friend that have ended. Without other reasons, it is a stranger now.

    Either one account made the reasons, and guesses at other accounts come from addresses where that account
    logs in. Or the only reason is a login, and Asterisk has refused the request of this login afterwards.
    """

    reasons: tuple[Friend, ...]


Effect = Judgement | AlarmChange | Login | Observe | Estranged
"""One result of the detector, which its caller carries out or reports."""


@frozen
class Watched:
    """A sender (address or network) with attempts that have not led to a ban.

    ``rule`` is the name of the rule that is nearest to a ban of the subject. This rule needs ``of`` attempts,
    and ``have`` are within its window. If no rule counts the attempts, ``rule`` is "".
    """

    subject: Network
    rule: str
    have: int
    of: int
    disposition: Disposition
    attempts: tuple[Attempt, ...]


@frozen
class Pinging:
    """A host that sends requests without credentials again and again: perhaps a carrier or a monitor.

    It sent ``number`` requests since ``began``, the last one at ``last`` (seconds since the epoch).
    ``method`` is "" if it is unknown. ``account`` is the sender's own text.
    """

    address: Address
    number: int
    began: float
    last: float
    method: str
    account: str

    @property
    def sentence(self) -> str:
        """A sentence for the administrator: how often this host asks, and how to allow it."""
        named = f" for {printable(self.account)}" if self.account else ""
        what = self.method or "requests without credentials"
        return (
            f"sends {what} that no identify matches ({self.number} since {rfc3339(self.began)}{named}): "
            "a carrier or a monitor? They are no attempts; "
            "fix: if you know it, add its address to an identify in pjsip.conf"
        )


@frozen
class Guest:
    """A stranger whose calls Asterisk takes without a password: perhaps a carrier.

    It made ``number`` calls since ``began``, the last one at ``last`` (seconds since the epoch).
    """

    address: Address
    number: int
    began: float
    last: float

    @property
    def sentence(self) -> str:
        """A sentence for the administrator: how often this stranger calls, and how to allow it."""
        return (
            f"calls without a password, and Asterisk takes its calls ({self.number} since "
            f"{rfc3339(self.began)}): a carrier? fix: if you know it: ringfence allow add {self.address}; "
            "if anybody may call: guests = true in [[asterisk]]"
        )


@frozen
class AddressSummary:
    """All that is known about an address: its network, its attempts, and how near each rule is to a ban.

    ``attempts`` are those in memory, oldest first. ``friends`` are the reasons why the address is a friend
    now, ``former`` the reasons why it was a friend. ``pinging`` is () unless the host asks again and again.
    """

    address: Address
    subject: Network
    exempt: bool
    friends: tuple[Friend, ...]
    former: tuple[Friend, ...]
    attempts: tuple[Attempt, ...]
    counts: tuple[Count, ...]
    outage_mode: bool
    pinging: tuple[Pinging, ...] = ()


@define
class Counts:
    """The number of attempts, and the number of those with each outcome.

    ``by_kind`` has for each kind the number of attempts by proof (the index is a :class:`Proof`), as known
    when they were judged. ``proven_later``: those that were unproven then, but proven afterwards.
    ``unconfirmed``: attempts that a rule would count if they were confirmed. ``hidden``: attempts that only
    copied packets show. ``forged``: reports that name an address which sent nothing; they are not attempts.
    ``uncounted``: attempts of friends that can lead to no ban, because they are unproven, or because outage
    mode is on.
    """

    by_kind: dict[AttemptKind, list[int]] = Factory(lambda: {kind: [0] * len(Proof) for kind in AttemptKind})
    proven_later: dict[AttemptKind, int] = Factory(lambda: dict.fromkeys(AttemptKind, 0))
    exempt: int = 0
    unconfirmed: int = 0
    late: int = 0
    hidden: int = 0
    forged: int = 0
    friends: int = 0
    uncounted: int = 0

    @property
    def attempts(self) -> int:
        """The number of attempts of all kinds."""
        return sum(map(sum, self.by_kind.values()))


# -- alarms of the detector: distributed attacks, forged addresses, and guesses that cannot be proven


_MOST_NAMED = 6
"""The greatest number of accounts that the text of an alarm names."""

FORGED_BY_TEXT = (
    "its requests name {at} as their sender, by a Via header or a forged source address; they count as "
    "attempts of its own"
)


def distributed(asterisk: str, account: str) -> AlarmChange:
    """Return the alarm that many addresses try one account."""
    text = (
        f"many addresses try the password of {printable(account)}; until they stop, a stranger's first "
        "failure there closes SIP for ten minutes by the transport that it used, to its whole network if "
        "others of it fail there too; nothing changes where the account works or worked; fix: make sure that "
        "its password is long"
    )
    return AlarmChange(AlarmCode.ATTACK_DISTRIBUTED, _name(asterisk, account), text, lasts=inf)


def distributed_cleared(asterisk: str, account: str) -> AlarmChange:
    """Return the change that clears the alarm of :func:`distributed`."""
    return AlarmChange(AlarmCode.ATTACK_DISTRIBUTED, _name(asterisk, account), "", cleared=True)


def friend_banned(address: Address, decision: Decision) -> AlarmChange:
    """Return the alarm that a friend's address is banned for SIP by one transport (UDP or TCP)."""
    accounts = [*dict.fromkeys(one.account for one in decision.attempts if one.account)]
    named = ", ".join(map(printable, accounts[-_MOST_NAMED:])) or "unknown accounts"
    by = "UDP" if decision.scope is Scope.SIP_UDP else "TCP"
    text = (
        f"guesses at other accounts ({named}) come from there, so SIP by {by} from this address is banned; "
        "are these phones with old passwords? correct them, and end the ban by "
        f"`ringfence unban {address}`; `ringfence allow add {address}` prevents further ones"
    )
    lasts = decision.seconds if decision.seconds is not None else HOUR
    return AlarmChange(AlarmCode.FRIEND_BANNED, str(address), text, lasts=lasts)


def guessing(asterisk: str, account: str) -> AlarmChange:
    """Return the alarm that guesses at other accounts come from new addresses where ``account`` logs in."""
    name = printable(account)
    text = (
        f"guesses at other accounts come from where {name} logs in: somebody may have its password; for an "
        "hour its new addresses are no friends; change the password"
    )
    return AlarmChange(AlarmCode.FRIEND_GUESSING, _name(asterisk, account), text, lasts=HOUR)


def too_many_friends(asterisk: str, account: str) -> AlarmChange:
    """Return the alarm that one account logs in from too many new addresses."""
    text = (
        f"{printable(account)} logs in from so many new addresses that others become no friends (at most "
        f"{MOST_AN_HOUR} an hour, {MOST_A_DAY} a day); unless its phones move so much, change the password"
    )
    return AlarmChange(AlarmCode.FRIEND_TOO_MANY, _name(asterisk, account), text, lasts=HOUR)


OFFICE = 3
"""The number of existing accounts with wrong passwords that shows an office: an address of many phones."""


def office_banned(subject: Network, accounts: int) -> AlarmChange:
    """Return the alarm that a banned address had wrong passwords for ``accounts`` accounts that exist."""
    address = format_network(subject)
    text = (
        f"{accounts} or more phones with old passwords? Its ban covers the SIP ports only, for wrong "
        f"passwords of so many accounts that exist. If it is yours: ringfence allow add {address}, then "
        f"ringfence unban {address}, and correct the passwords"
    )
    return AlarmChange(AlarmCode.OFFICE_BANNED, address, text, lasts=DAY)


def spoofing(most: int) -> AlarmChange:
    """Return the alarm that more than ``most`` new unproven addresses a minute reached a rule's threshold."""
    return AlarmChange(AlarmCode.ATTACK_SPOOFING, "", _SPOOFING.format(most=most))


def forged_by(address: Address, at: Address) -> AlarmChange:
    """Return the alarm that requests from ``address`` name the false address ``at`` as their sender."""
    return AlarmChange(AlarmCode.EVIDENCE_FORGED_BY, str(address), FORGED_BY_TEXT.format(at=at))


def unprovable(address: Address, *, friend: bool) -> AlarmChange:
    """Return the alarm about guesses from ``address`` whose sender nothing can prove.

    ``friend`` is whether the address is a friend, which is not banned for these guesses.
    """
    text = (
        "its guesses carry nonces that were also sent elsewhere, or that this host never sent by UDP, so "
        "nothing proves that they came from this address"
    )
    if friend:
        text += "; it is a friend and not banned for them: look at the devices there"
    return AlarmChange(AlarmCode.EVIDENCE_UNPROVABLE, str(address), text)


def _name(asterisk: str, account: str) -> str:
    return f"{printable(account)} of {asterisk}"


_SPOOFING = (
    "packets with forged source addresses arrive: more than {most} new addresses a minute reached the "
    "threshold of a rule, and none of them is proven. For now only those that return are banned; proven "
    "addresses are banned as usual"
)
