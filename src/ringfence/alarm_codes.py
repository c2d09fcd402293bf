"""The codes of all alarms, each with its meaning and what to do.

A code is a dotted name. Commands and scripts decide by codes, never by texts. The table in docs/operating.md
contains the same sentences; a test compares them.
"""

import enum
from typing import Self

_SETUP = frozenset({"ban", "firewall", "limiter", "log", "store", "trial"})
"""The areas (first parts of codes) of alarms about the setup of this host."""


class AlarmCode(enum.StrEnum):
    """The code of an alarm, what it means, and what to do."""

    meaning: str
    action: str

    def __new__(cls, code: str, meaning: str, action: str) -> Self:
        """Return the member with this code."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        member.action = action
        return member

    @property
    def is_setup(self) -> bool:
        """Whether the alarm is about the setup of this host, so that ``ringfence check`` reports it.

        The other alarms are about phones, passwords, attackers and sources.
        """
        return self.partition(".")[0] in _SETUP

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
    )
    PASSWORD_GUESSED = (
        "password.guessed",
        "A correct password followed three wrong ones from the same address.",
        "Change the password, unless a new phone was set up there.",
    )
    PASSWORD_ELSEWHERE = (
        "password.elsewhere",
        "An account logs in from an address where it never was.",
        "Change its password, unless the phone moved.",
    )
    ATTACK_DISTRIBUTED = (
        "attack.distributed",
        "Many addresses try one account.",
        "Make sure that its password is long.",
    )
    ATTACK_SPOOFING = (
        "attack.spoofing",
        (
            "Someone forges source addresses: more new addresses a minute reached a rule than `[claimed] "
            "per_minute`, and none is proven. Friends, trunks and allowed addresses are safe."
        ),
        "Ask your provider for help against the flood.",
    )
    EVIDENCE_HIDDEN = (
        "evidence.hidden",
        "A sender hides its attempts from Asterisk's events; ringfence counts them.",
        "There is nothing to do.",
    )
    EVIDENCE_TAMPERED = (
        "evidence.tampered",
        (
            "A request contained text that imitates AMI events; ringfence counts it as an attempt of its "
            "true sender."
        ),
        "There is nothing to do.",
    )
    EVIDENCE_FORGED_BY = (
        "evidence.forged_by",
        (
            "A sender had its attempts reported under another address, which the text names; ringfence "
            "counts them for the sender."
        ),
        "Under chan_sip without the wire they ban nothing: switch the wire on.",
    )
    EVIDENCE_FORGED = (
        "evidence.forged",
        "A log line names an address to which Asterisk sent nothing; the line does not count.",
        "Do nothing about that address.",
    )
    EVIDENCE_UNCONFIRMED = (
        "evidence.unconfirmed",
        "Attempts are unconfirmed, so they ban nothing; the text gives the reason.",
        "If the address is an attacker, ban it with `ringfence ban`, or switch on the missing source.",
    )
    EVIDENCE_UNPROVABLE = (
        "evidence.unprovable",
        (
            "Guesses carry nonces that were also sent elsewhere, or that this host never sent, so the "
            "guesses stay claimed."
        ),
        "If the address is a friend, look at the devices there.",
    )
    EVIDENCE_FORGEABLE = (
        "evidence.forgeable",
        "AMI is also served over HTTP, so clients can forge events.",
        "Apply the fix that the text names.",
    )
    SOURCE_SILENT = (
        "source.silent",
        "A source has not been listening for 5 seconds; the text gives the reason.",
        "Remove the cause; ringfence connects again by itself.",
    )
    LOG_LOST = (
        "log.lost",
        "Asterisk itself dropped lines of its log, or could not report something.",
        "Attempts that only this log reports are missed: look at the load of the host.",
    )
    BAN_NOT_EFFECTIVE = (
        "ban.not_effective",
        "Packets of a banned address still arrive.",
        "Remove the likely cause, which the text names.",
    )

    FIREWALL_NOT_ENFORCED = (
        "firewall.not_enforced",
        "ringfence is switched on, but could not put its rules in place; no address is banned.",
        "Remove the cause, which the text names; ringfence tries again every 30 seconds.",
    )
    FIREWALL_DAMAGED = (
        "firewall.damaged",
        "The rules or sets cannot be checked or repaired, so bans may have no effect.",
        "Remove the cause, which the text names; ringfence tries again every second.",
    )
    FIREWALL_NOT_COMPARED = (
        "firewall.not_compared",
        "The bans in the kernel cannot be compared with the recorded ones.",
        "Remove the cause, which the text names; ringfence tries again every minute.",
    )
    FIREWALL_NOT_CHANGED = (
        "firewall.not_changed",
        "New rules could not be put in place; the old ones stay.",
        "Remove the cause, which the text names; ringfence tries again every 30 seconds.",
    )
    FIREWALL_LEFTOVERS = (
        "firewall.leftovers",
        "The rules of another backend cannot be removed.",
        "Run `ringfence off` and `ringfence on` as root.",
    )
    FIREWALL_COUNTERS = (
        "firewall.counters",
        "The counters of the rules cannot be read, so `status` shows none.",
        "Remove the cause, which the text names.",
    )
    LIMITER_FULL = (
        "limiter.full",
        "The limiter has no room for more sources, because packets come from a million addresses.",
        "Ask your provider for help against the flood.",
    )
    LIMITER_UNREADABLE = (
        "limiter.unreadable",
        "The sources that exceed the limiter's rate cannot be read, so the rule `flood` bans nothing.",
        "Remove the cause, which the text names.",
    )
    STORE_DAMAGED = (
        "store.damaged",
        "The database was damaged.",
        "Follow the text.",
    )
    STORE_IN_MEMORY = (
        "store.in_memory",
        (
            "The database cannot be opened, so bans are kept in memory only and are forgotten at the next "
            "stop."
        ),
        "Follow the text, and restart ringfence.",
    )
    TRIAL_NOT_ENDED = (
        "trial.not_ended",
        "A trial has ended, but not everything could be removed.",
        "Run `ringfence off`.",
    )
