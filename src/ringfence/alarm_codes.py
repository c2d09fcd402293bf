"""The codes of the guard's alarms, each with its meaning and what to do, and the class of reported alarms.

A code is a dotted name. Commands and scripts decide by codes, never by texts. A feature has codes of its own.
The table in docs/operating.md contains the same sentences; a test compares them.
"""

import enum
from functools import cache
from typing import Self

from attrs import frozen

from ringfence import street

_EVENTS = frozenset(
    {"account", "attack", "evidence", "friend", "office", "password", "phone", "phones", "source"}
)
"""The first parts (before the dot) of the codes of alarms that are not about how this host is set up.

Most of these alarms report an event, such as an attack, or a phone with a wrong password.
"""


def is_about_setup(code: str) -> bool:
    """Whether ``ringfence check`` reports an alarm with this code: it is about how this host is set up.

    Alarms about silent sources are not reported there, because ``check`` tests the sources itself.
    """
    return code.partition(".")[0] not in _EVENTS


class Mark(enum.Enum):
    """A property of an alarm code, by which its alarms are treated differently from others."""

    CRITICAL = enum.auto()
    INFO = enum.auto()
    """An alarm with this code only informs: an administrator need not act."""
    KNOWN_LATE = enum.auto()
    """The alarm can be reported only some time after a restart, so a restored alarm stays for a while."""
    ENDED_BY_RESTART = enum.auto()
    """The alarm clears at a restart, because the state that it reports is only in memory."""
    STATE = enum.auto()
    """The alarm is about a state, and is activated again and again while the state lasts.

    A dismissed one is hidden until the state ends and begins again, or the text changes. An alarm that lasts
    as long as its part reports it (a *held* one) needs no such mark.
    """


class AnyAlarmCode(enum.StrEnum):
    """The code of an alarm, such as ``attack.spoofing``, with its meaning, the fix and its marks."""

    meaning: str
    action: str
    marks: frozenset[Mark]

    @property
    def rank(self) -> int:
        """How urgent its alarms are: 2 for a critical code, 0 for one that only informs, 1 for any other."""
        return 1 + (Mark.CRITICAL in self.marks) - (Mark.INFO in self.marks)

    def __new__(cls, code: str, meaning: str, action: str, *marks: Mark) -> Self:
        """Return a member whose value is ``code``, with its two texts and its marks as attributes."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        member.action = action
        member.marks = frozenset(marks)
        return member


class AlarmCode(AnyAlarmCode):
    """The codes of the guard's alarms. A feature has its own, in its module ``alarms``."""

    PHONE_BROKEN = (
        "phone.broken",
        "A phone fails on the account that worked at its address; ringfence does not ban it.",
        "Correct its password.",
    )
    PHONE_FAILING = (
        "phone.failing",
        "An account fails again and again at the address of a friend, where it never worked.",
        "Find out whether it is a new phone with a wrong password, or whether someone there guesses.",
    )
    PHONES_ALL_FAILING = (
        "phones.all_failing",
        "Half of the phones fail at once; until this clears, ringfence bans no known phone.",
        "Look at Asterisk's database and at its last reload.",
        Mark.CRITICAL,
        Mark.ENDED_BY_RESTART,
    )
    PASSWORD_GUESSED = (
        "password.guessed",
        "A correct password followed three wrong ones from the same address.",
        "Change the password, unless a new phone was set up there.",
        Mark.CRITICAL,
    )
    FRIEND_BANNED = (
        "friend.banned",
        "Guesses at other accounts come from a friend's address; SIP from there is banned by one transport.",
        "Correct the phones there that have old passwords, then end the ban with `ringfence unban`.",
    )
    FRIEND_GUESSING = (
        "friend.guessing",
        "Guesses at other accounts come from new addresses where one account logs in.",
        "Change the password of that account: somebody may have it.",
    )
    FRIEND_TOO_MANY = (
        "friend.too_many",
        "One account logs in from so many new addresses that further ones become no friends.",
        "Change its password, unless so many of its phones move.",
    )
    ATTACK_DISTRIBUTED = (
        "attack.distributed",
        "Many addresses try one account. Meanwhile a stranger's first failure there is a short ban of SIP.",
        "Make sure that its password is long.",
    )
    OFFICE_BANNED = (
        "office.banned",
        (
            "A banned address had wrong passwords for several accounts that exist: perhaps an office "
            "whose phones have old passwords. The ban covers the SIP ports only."
        ),
        "If it is yours, run the two commands of the text, and correct the passwords. Otherwise do nothing.",
    )
    ATTACK_SPOOFING = (
        "attack.spoofing",
        (
            "Someone forges source addresses: more new addresses a minute reached a rule than `[claimed] "
            "per_minute`, and none is proven. Friends, trunks and allowed addresses are safe."
        ),
        "Ask your provider for help against the flood.",
        Mark.STATE,
    )
    EVIDENCE_HIDDEN = (
        "evidence.hidden",
        "A sender hides its attempts from Asterisk's events; ringfence counts them.",
        "There is nothing to do.",
        Mark.INFO,
    )
    EVIDENCE_TAMPERED = (
        "evidence.tampered",
        (
            "A request contained text that imitates AMI events; ringfence counts it as an attempt of its "
            "true sender."
        ),
        "There is nothing to do.",
        Mark.INFO,
    )
    EVIDENCE_FORGED_BY = (
        "evidence.forged_by",
        (
            "A sender had its attempts reported under another address, which the text names; ringfence "
            "counts them for the sender."
        ),
        "There is nothing to do.",
        Mark.INFO,
    )
    EVIDENCE_FORGED = (
        "evidence.forged",
        "A log line names an address to which Asterisk sent nothing; the line does not count.",
        "Do nothing about that address.",
        Mark.INFO,
    )
    EVIDENCE_UNCONFIRMED = (
        "evidence.unconfirmed",
        "Attempts are unconfirmed, so they ban nothing; the text gives the reason.",
        "If the address is an attacker, ban it with `ringfence ban`, or switch on the missing source.",
        Mark.INFO,
    )
    EVIDENCE_UNPROVABLE = (
        "evidence.unprovable",
        (
            "Guesses carry nonces that were also sent elsewhere, or that this host never sent, so the "
            "guesses stay claimed."
        ),
        "If the address is a friend, look at the devices there.",
        Mark.INFO,
    )
    EVIDENCE_FORGEABLE = (
        "evidence.forgeable",
        "AMI is also served over HTTP, so clients can forge events.",
        "Apply the fix that the text names.",
        Mark.STATE,
    )
    SOURCE_SILENT = (
        "source.silent",
        "A source has not been listening for 5 seconds; the text gives the reason.",
        (
            "Remove the cause; ringfence connects again by itself. After a refused login, run "
            "`ringfence reload`."
        ),
        Mark.CRITICAL,
        Mark.STATE,
    )
    LOG_LOST = (
        "log.lost",
        "Asterisk itself dropped lines of its log, so attempts that only this log reports are missed.",
        "Look at the load of the host.",
    )
    LOG_SILENCED = (
        "log.silenced",
        (
            "Asterisk could not raise a security event, because a sender put a byte that is not UTF-8 into "
            "a request."
        ),
        "There is nothing to do: the wire and the log show the attempt.",
        Mark.INFO,
    )
    LOG_TAMPERED = (
        "log.tampered",
        "A log contains text of a sender that imitates log lines; such text bans nothing.",
        "There is nothing to do.",
        Mark.INFO,
    )
    LOG_CLOCK = (
        "log.clock",
        "The times in a log differ from this host's clock, so attempts may count at the wrong time.",
        "Correct the clock, or set `timezone` in `[asterisk.logs]`.",
        Mark.STATE,
    )
    LOG_JOURNAL_DROPS = (
        "log.journal_drops",
        "The journal drops lines of Asterisk, so attempts that only these lines report are missed.",
        "Raise `RateLimitBurst=` of the journal.",
    )
    LOG_JOURNAL_USER = (
        "log.journal_user",
        (
            "The journal has lines of a unit or container named like Asterisk, of a user who is not in "
            "`journal_users`. They do not count."
        ),
        (
            "If Asterisk runs as this user, whom `status` names, add the user to `journal_users` in "
            "`[asterisk.logs]`."
        ),
        Mark.STATE,
    )
    LOG_UNWRITABLE = (
        "log.unwritable",
        "The daemon cannot write its own log, so lines of it are lost; guarding continues.",
        "Remove the cause, which the text names; the log continues by itself.",
    )
    BAN_NOT_EFFECTIVE = (
        "ban.not_effective",
        "Packets of a banned address still arrive.",
        "See operating.md, *A ban has no effect*.",
    )

    FIREWALL_NOT_ENFORCED = (
        "firewall.not_enforced",
        "ringfence is switched on, but could not put its rules in place; no address is banned.",
        "Remove the cause, which the text names; ringfence tries again every 30 seconds.",
        Mark.CRITICAL,
        Mark.STATE,
    )
    FIREWALL_DAMAGED = (
        "firewall.damaged",
        "The rules or sets cannot be checked or repaired, so bans may have no effect.",
        "Remove the cause, which the text names; ringfence tries again every second.",
        Mark.CRITICAL,
        Mark.STATE,
    )
    FIREWALL_NOT_COMPARED = (
        "firewall.not_compared",
        "The bans in the kernel cannot be compared with the recorded ones.",
        "Remove the cause, which the text names; ringfence tries again every minute.",
        Mark.STATE,
    )
    FIREWALL_NOT_CHANGED = (
        "firewall.not_changed",
        "New rules could not be put in place; the old ones stay.",
        "Remove the cause, which the text names; ringfence tries again every 30 seconds.",
        Mark.STATE,
    )
    PROXY_MISSING = (
        "proxy.missing",
        "No SIP proxy listens here, so no client is known and the wire proves nothing.",
        "Start Kamailio or OpenSIPS, or remove `proxies` from `[[asterisk]]`.",
        Mark.STATE,
    )
    PROXY_UNNAMED = (
        "proxy.unnamed",
        "A SIP proxy listens here and `proxies` is empty, so all its clients may be banned with it.",
        "Name the addresses from which it sends to Asterisk in `proxies` of `[[asterisk]]`, or stop it.",
        Mark.STATE,
    )
    FIREWALL_LEFTOVERS = (
        "firewall.leftovers",
        "The rules of another backend cannot be removed.",
        "Run `ringfence off` and `ringfence on` as root.",
        Mark.STATE,
    )
    FIREWALL_COUNTERS = (
        "firewall.counters",
        "The counters of the rules cannot be read, so `status` shows none.",
        "Remove the cause, which the text names.",
        Mark.STATE,
    )
    FIREWALL_OFF = (
        "firewall.off",
        "Someone ran `ringfence off`. No address is banned, unless the kernel refuses to remove the rules.",
        "Run `ringfence on`.",
        Mark.CRITICAL,
    )
    FIREWALL_DRY_RUN = (
        "firewall.dry_run",
        "The backend is `memory`, so nothing is dropped.",
        "Set another `backend` in `[firewall]` and restart ringfence, unless you want a dry run.",
    )
    FIREWALL_REFUSED = (
        "firewall.refused",
        "The kernel refuses bans; ringfence keeps them and tries again.",
        "Remove the cause, which the text names.",
        Mark.CRITICAL,
    )
    FIREWALL_INTERFACES = (
        "firewall.interfaces",
        "The configuration names network interfaces that this host does not have.",
        "Correct `interfaces` in `[firewall]`.",
    )
    WIRE_BLIND = (
        "wire.blind",
        "The wire is on, but shows no challenges.",
        "Remove the cause, which the text names.",
        Mark.KNOWN_LATE,
    )
    WIRE_USER = (
        "wire.user",
        (
            "It is unknown which user's sockets, or which container, are Asterisk's, so the wire counts no "
            "answer of this host, or of containers: another program could have sent it."
        ),
        (
            "Let AMI listen at the port in `[asterisk.ami]`, on this host or at the container's address. If "
            "Asterisk's user is not named asterisk, add it to `server_users` there."
        ),
        Mark.KNOWN_LATE,
    )
    FIREWALL_LIMITS = (
        "firewall.limits",
        "The limits on the packets of one sender could not be put in place; bans work.",
        "Remove the cause, which the text names.",
    )
    STORE_DAMAGED = (
        "store.damaged",
        "The database was damaged.",
        "Follow the text.",
        Mark.CRITICAL,
    )
    STORE_IN_MEMORY = (
        "store.in_memory",
        (
            "The database cannot be opened, so bans are kept in memory only and are forgotten at the next "
            "stop."
        ),
        "Follow the text, and restart ringfence.",
        Mark.CRITICAL,
    )
    STORE_NOT_RECORDED = (
        "store.not_recorded",
        (
            "The database cannot be read or written, or is not at its place; everything works, but the next "
            "start may not know the latest changes."
        ),
        (
            "Remove the cause, which the text names. ringfence records what is missing, unless the text asks "
            "for a restart."
        ),
    )
    STORE_SLOW = (
        "store.slow",
        "Too many writes to the database waited, so some were dropped; bans are recorded again later.",
        (
            "Free the disk. To use a faster one: stop ringfence, move the database's files there, name the "
            "file as `path` in `[store]`, and add its folder as `ReadWritePaths=` (`systemctl edit "
            "ringfence`, and the same for ringfence-early)."
        ),
    )
    STORE_UNREAD = (
        "store.unread",
        "The recorded bans could not be read, so those that the kernel has lost are not in force.",
        "Remove the cause, which the text names; ringfence tries again every 30 seconds.",
        Mark.CRITICAL,
    )
    STORE_INVALID_BANS = (
        "store.invalid_bans",
        "Some recorded bans were unreadable at the start and are left out.",
        "There is nothing to do: ringfence adopts those that the kernel still has.",
    )
    TASK_FAILED = (
        "task.failed",
        "Periodic work of the daemon failed; ringfence goes on and tries again.",
        "Remove the cause, which the text names; the log has the details (`task.failed`).",
        Mark.STATE,
    )
    CONFIGURATION_REFUSED = (
        "configuration.refused",
        "The configuration file has mistakes, so the old configuration stays in force.",
        "Correct the mistakes, which the text names, and run `ringfence reload`.",
    )
    CONFIGURATION_RESTART = (
        "configuration.restart",
        "Changed keys of the configuration are not in force yet.",
        "Restart ringfence.",
    )
    CONFIGURATION_DECOY = (
        "configuration.decoy",
        "A decoy is a real account, so one mistyped password is a ban.",
        "Take it out of `accounts` in `[rules.decoy]`.",
    )
    HOST_UNREADABLE = (
        "host.unreadable",
        "Facts about this host, which the subject names, cannot be read; the last known ones count.",
        "Remove the cause, which the text names.",
        Mark.KNOWN_LATE,
    )
    NAME_UNRESOLVED = (
        "name.unresolved",
        "A name of the configuration or of a trunk cannot be resolved; its last addresses stay.",
        "Correct the name or the DNS.",
        Mark.KNOWN_LATE,
    )
    NAME_TOO_MANY_ADDRESSES = (
        "name.too_many_addresses",
        "A name has more addresses than ringfence follows.",
        "Allow the network of the addresses instead.",
    )
    NAME_LEFT_OUT = (
        "name.left_out",
        "There are more names than ringfence follows.",
        "Allow networks instead of names.",
    )
    LIST_INVALID_ENTRY = (
        "list.invalid_entry",
        "An entry of a list is invalid and has no effect.",
        "Correct or remove it.",
    )
    LIST_NOT_DENIED = (
        "list.not_denied",
        "An entry of the deny list contains an address that this host needs, so it is not denied.",
        "Remove it, or add it with `--force`.",
    )
    LIST_UNRESOLVED = (
        "list.unresolved",
        "A name on the allow list has no known address yet, so nothing is allowed for it.",
        "Correct the name or the DNS.",
    )
    LIST_FULL = (
        "list.full",
        "A list has more networks than fit into the kernel; the rest is not in force.",
        "Raise `max_bans` in `[firewall]`, and run `ringfence reload`.",
    )
    LIST_ALLOWS_MUCH = (
        "list.allows_much",
        "The allow list covers a large part of the Internet, from where nothing is banned.",
        "Remove the entries that you do not need; the log has who added them (`control.changed`).",
    )
    LIST_UNREADABLE = (
        "list.unreadable",
        "The lists cannot be read from the database, so changes are not in force.",
        "Remove the cause, which the text names.",
    )


@cache
def every_code() -> tuple[AnyAlarmCode, ...]:
    """Return all alarm codes: those of the guard, and those of the features that are installed."""
    return (*AlarmCode, *(code for module in street.modules("alarms") for code in module.CODES))


@frozen
class Alarm:
    """A problem that a part of ringfence reports: a code, a subject and a text.

    ``subject`` is the address, the account or the part that the alarm is about, or "" if there is none.
    """

    code: AnyAlarmCode
    subject: str
    text: str

    def as_json(self) -> dict[str, str]:
        """Return the alarm as a JSON object, for ``ringfence status`` and other commands."""
        return {"code": str(self.code), "subject": self.subject, "text": self.text}
