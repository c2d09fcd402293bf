"""The settings: what the configuration says, as frozen values with every default, and what follows of it.

``config`` reads them from a file; nothing here reads anything.
"""

from collections.abc import Mapping
from pathlib import Path
from zoneinfo import ZoneInfo

from attrs import Factory, evolve, frozen

from ringfence.detect.rules import RULES, Claimed, Rule
from ringfence.firewall.contract import Limit, LimitMode, Plan, Ports, Verdict
from ringfence.lists.entries import CONFIGURATION, Configured, place_from
from ringfence.lists.prefixes import code_of, text_of
from ringfence.model import ListEntry, Network, Secret, Side
from ringfence.values import (
    BackendName,
    Burst,
    Count,
    Duration,
    FriendCount,
    HostName,
    Interface,
    Ladder,
    LevelName,
    Name,
    Paths,
    Pattern,
    PerMinute,
    Place,
    Port,
    Rate,
    ScopeName,
    SetSize,
    SipPort,
    Text,
)


@frozen
class AmiSettings:
    """``[asterisk.ami]``: how to reach one Asterisk's manager interface, and whom to be there.

    ``enabled`` set to false does without it: then the log tells, and no secret is needed.
    ``tls_ca`` is a file of certificates to trust in place of the system's own; ``tls_verify`` set to false
    accepts any certificate (Asterisk's samples are self-signed).
    """

    enabled: bool = True
    host: Text = Text("127.0.0.1")
    port: Port = Port(5038)
    username: Text = Text("ringfence")
    secret: Secret | None = None
    secret_file: Path | None = None
    tls: bool = False
    tls_ca: Path | None = None
    tls_verify: bool = True


@frozen(kw_only=True)
class CustomSettings:
    """``[[asterisk.logs.custom]]``: a line of the administrator's own dialplan that tells of an attempt.

    ``level`` and ``file`` are what Asterisk writes before the message, and ``pattern`` is the message. They
    are as strict as :mod:`ringfence.parse.custom` says, and have been tried.
    """

    name: Name
    level: LevelName = LevelName("NOTICE")
    file: Text = Text("Ext.")
    pattern: Pattern


@frozen
class LogSettings:
    """``[asterisk.logs]``: the logs that are read beside the manager interface.

    ``paths`` is None where they are to be found, and empty where none is to be read. ``timezone`` is the zone
    that they are written in, None for this host's. ``journal``: whether systemd's journal is one of them.
    """

    paths: tuple[Path, ...] | None = None
    timezone: ZoneInfo | None = None
    journal: bool = False
    custom: tuple[CustomSettings, ...] = ()

    @property
    def wanted(self) -> bool:
        """Whether any log is to be read."""
        return self.paths != () or self.journal


@frozen
class WireSettings:
    """``[asterisk.wire]``: whether the challenges that leave this host are looked at.

    They tell who really made an attempt, whoever is blamed for it, and of attempts that hide. One host has
    one wire: it is looked at where any of its PBXs asks for it.
    """

    enabled: bool = True


@frozen
class AsteriskSettings:
    """``[[asterisk]]``: one PBX and the ways to hear it."""

    name: Name = Name("asterisk")
    ami: AmiSettings = Factory(AmiSettings)
    logs: LogSettings = Factory(LogSettings)
    wire: WireSettings = Factory(WireSettings)


@frozen
class LimitSettings:
    """``[firewall.limit]``: how many packets a second of one source reach the SIP ports."""

    mode: LimitMode = LimitMode.ENFORCE
    rate: Rate = Rate(50)
    burst: Burst = Burst(200)


@frozen
class FirewallSettings:
    """``[firewall]``: what drops, where, and how.

    ``backend`` ``memory`` is a dry run: nothing is dropped. ``sip_ports`` is None where they are found.
    """

    backend: BackendName = BackendName("auto")
    scope: ScopeName = ScopeName("all")
    sip_ports: tuple[SipPort, ...] | None = None
    interfaces: tuple[Interface, ...] = ()
    action: Verdict = Verdict.DROP
    log: bool = False
    max_bans: SetSize = SetSize(262_144)
    limit: LimitSettings = Factory(LimitSettings)


@frozen
class AllowSettings:
    """``[allow]``: whom nothing bans, besides loopback and this host's own addresses."""

    networks: tuple[Network, ...] = ()
    hosts: tuple[HostName, ...] = ()
    countries: tuple[Place, ...] = ()


@frozen
class DenySettings:
    """``[deny]``: whom nothing lets in, but what is allowed."""

    networks: tuple[Network, ...] = ()
    countries: tuple[Place, ...] = ()


@frozen
class GeoSettings:
    """``[geo]``: databases that know the networks of countries and of network numbers; None: none."""

    database: Paths | None = None


@frozen
class RuleSettings:
    """``[rules.NAME]``: so many attempts within a window are a ban of such a length.

    ``ban`` is one length, or a list: of the first ban, of the next on return within 30 days, and so on. The
    others are of some rules alone, and None elsewhere: ``friends`` is the number for friends (0: none),
    ``addresses`` how many of a network must take part, ``accounts`` whom a decoy calls itself, ``strangers``
    how many failures of a stranger are enough while an account is besieged.
    """

    enabled: bool
    attempts: Count
    window: Duration
    ban: Ladder
    friends: FriendCount | None = None
    addresses: Count | None = None
    accounts: tuple[Text, ...] | None = None
    strangers: Count | None = None

    @classmethod
    def of(cls, rule: Rule) -> "RuleSettings":
        """Give the settings of a rule with its own numbers."""
        return cls(
            rule.enabled,
            Count(rule.attempts),
            Duration(rule.window),
            Ladder(rule.ban),
            FriendCount(rule.friends) if rule.friends else None,
            Count(rule.addresses) if rule.addresses else None,
            None if rule.accounts is None else tuple(map(Text, sorted(rule.accounts))),
            Count(rule.strangers) if rule.strangers else None,
        )

    def rule(self, rule: Rule) -> Rule:
        """Give ``rule`` with these numbers."""
        return evolve(
            rule,
            enabled=self.enabled,
            attempts=self.attempts,
            window=self.window,
            ban=tuple(self.ban),
            friends=self.friends or 0,
            addresses=self.addresses or 0,
            accounts=None if self.accounts is None else frozenset(self.accounts),
            strangers=self.strangers or 0,
        )


@frozen
class ClaimedSettings:
    """``[claimed]``: what evidence may do that only claims its address.

    ``ban`` as a rule's; ``per_minute`` is how many new ones there may be.
    """

    ban: Ladder = Ladder(Claimed().ban)
    per_minute: PerMinute = PerMinute(Claimed().per_minute)


@frozen
class StoreSettings:
    """``[store]``: where bans and their attempts are kept."""

    path: Path = Path("/var/lib/ringfence/ringfence.db")


@frozen
class ControlSettings:
    """``[control]``: the socket on which the command line talks to the daemon."""

    socket: Path = Path("/run/ringfence/control.sock")


def default_rules() -> dict[str, RuleSettings]:
    """Give the settings of every rule there is, with its own numbers."""
    return {rule.name: RuleSettings.of(rule) for rule in RULES}


@frozen
class Settings:
    """The whole file. ``rules`` has an entry for every rule there is."""

    asterisk: tuple[AsteriskSettings, ...] = (AsteriskSettings(),)
    firewall: FirewallSettings = Factory(FirewallSettings)
    allow: AllowSettings = Factory(AllowSettings)
    deny: DenySettings = Factory(DenySettings)
    geo: GeoSettings = Factory(GeoSettings)
    rules: Mapping[str, RuleSettings] = Factory(default_rules)
    claimed: ClaimedSettings = Factory(ClaimedSettings)
    store: StoreSettings = Factory(StoreSettings)
    control: ControlSettings = Factory(ControlSettings)

    def rule_table(self) -> tuple[Rule, ...]:
        """Give the rules with the numbers of this configuration."""
        return tuple(self.rules[rule.name].rule(rule) for rule in RULES)

    def claims(self) -> Claimed:
        """Give what evidence may do that only claims its address."""
        return Claimed(tuple(self.claimed.ban), self.claimed.per_minute)

    def plan(self, found_ports: Ports | None, log_group: int | None) -> Plan:
        """Give the rules that are wanted; ``found_ports`` are Asterisk's, None where unknown."""
        mine = self.firewall
        ports = found_ports if found_ports is not None else Ports()
        if mine.sip_ports is not None:
            ports = Ports(
                udp=tuple(sorted({port.number for port in mine.sip_ports if port.udp})),
                tcp=tuple(sorted({port.number for port in mine.sip_ports if port.tcp})),
            )
        return Plan(
            maxelem=mine.max_bans,
            log_group=log_group,
            every_port=mine.scope == "all",
            sip_ports=ports,
            interfaces=tuple(mine.interfaces),
            verdict=mine.action,
            log=mine.log,
            limit=Limit(mine.limit.mode, mine.limit.rate, mine.limit.burst),
        )

    def lists(self) -> Configured:
        """Give what the lists have to know of this configuration."""
        said = [
            *((Side.ALLOW, text_of(*code_of(network))) for network in self.allow.networks),
            *((Side.ALLOW, host) for host in self.allow.hosts),
            *((Side.ALLOW, place_from(place).text) for place in self.allow.countries),
            *((Side.DENY, text_of(*code_of(network))) for network in self.deny.networks),
            *((Side.DENY, place_from(place).text) for place in self.deny.countries),
        ]
        return Configured(
            entries=tuple(ListEntry(side, what, "", 0.0, None, CONFIGURATION) for side, what in said),
            databases=tuple(self.geo.database or ()),
            most=self.firewall.max_bans,
        )

    @property
    def wire(self) -> bool:
        """Whether any PBX asks for the wire."""
        return any(pbx.wire.enabled for pbx in self.asterisk)

    def heard(self) -> tuple[AsteriskSettings, ...]:
        """Give each PBX with the logs that are read of it.

        Beside others none finds its logs by itself: the same files would be found for each.
        """
        if len(self.asterisk) == 1:
            return self.asterisk
        return tuple(
            evolve(pbx, logs=evolve(pbx.logs, paths=() if pbx.logs.paths is None else pbx.logs.paths))
            for pbx in self.asterisk
        )

    def several_sources(self) -> frozenset[str]:
        """Give the names of the Asterisks that are heard by more than AMI."""
        return frozenset(pbx.name for pbx in self.heard() if pbx.logs.wanted or self.wire)
