"""The settings as immutable values, with all defaults, and the values that other packages derive from them.

This module reads no file; ``loader`` does.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin
from zoneinfo import ZoneInfo

from attrs import Attribute, Factory, evolve, fields, frozen, has

from ringfence import street
from ringfence.config.converters import (
    HOOKS,
    BackendName,
    Count,
    Duration,
    FriendCount,
    HostName,
    Interface,
    Ladder,
    LevelName,
    Name,
    Pattern,
    PerMinute,
    Port,
    Region,
    ScopeName,
    SetSize,
    SipPort,
    Text,
    TimesName,
    UserName,
)
from ringfence.detect.rules import RULES, Claimed, Rule
from ringfence.firewall.contract import BanAction, FirewallPlan
from ringfence.firewall.ports import Ports
from ringfence.lists.entries import CONFIGURATION, Configured, parse_region
from ringfence.lists.prefixes import code_of, text_of
from ringfence.netlink.nflog import GROUP
from ringfence.values.ban import Scope
from ringfence.values.entry import ListEntry, ListKind
from ringfence.values.network import Network, NetworkSet
from ringfence.values.secret import Secret

if TYPE_CHECKING:
    from ringfence.parse.custom import Custom


@frozen
class AmiSettings:
    """``[asterisk.ami]``: how to connect and log in to one Asterisk's manager interface (AMI).

    With ``enabled`` false, ringfence does not connect to AMI, and no secret is needed. The password is
    ``secret``, or the content of ``secret_file``. ``tls_ca`` is a file of certificates to trust instead of
    the system's. With ``tls_verify`` false, any certificate is accepted (Asterisk's sample certificates are
    self-signed). ``server_users`` are users, by name or number, whose programs on this host are taken for
    this Asterisk besides its usual users.
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
    server_users: tuple[UserName, ...] = ()


@frozen(kw_only=True)
class CustomSettings:
    """``[[asterisk.logs.custom]]``: a log line of the administrator's own dialplan that reports an attempt.

    ``level`` and ``file`` are what Asterisk writes before the message, and ``pattern`` matches the message.
    The forms that they may have are in :mod:`ringfence.parse.custom`.
    """

    name: Name
    level: LevelName = LevelName("NOTICE")
    file: Text = Text("Ext.")
    pattern: Pattern


@frozen
class LogSettings:
    """``[asterisk.logs]``: the logs that are read besides the manager interface.

    ``paths`` are log files. With None, ringfence looks for them itself; with (), no file is read.
    ``timezone`` is the time zone of the times in the logs; None means that of this host. With ``journal``,
    systemd's journal is read too, and in it the units and containers of ``journal_users``: names or numbers
    of users. ``custom`` are additional messages that report attempts.
    """

    paths: tuple[Path, ...] | None = None
    timezone: ZoneInfo | None = None
    journal: bool = False
    journal_users: tuple[UserName, ...] = ()
    custom: tuple[CustomSettings, ...] = ()

    @property
    def patterns(self) -> "tuple[Custom, ...]":
        """The patterns of additional log messages (``custom``), compiled."""
        if not self.custom:
            return ()
        from ringfence.parse.custom import Custom  # noqa: PLC0415 - loaded where it is asked for

        return tuple(
            Custom.compile(own.pattern, level=own.level, file=own.file, name=own.name) for own in self.custom
        )

    @property
    def wanted(self) -> bool:
        """Whether any log is to be read."""
        return self.paths != () or self.journal


@frozen
class WireSettings:
    """``[asterisk.wire]``: whether SIP packets that the kernel copies (NFLOG, the *wire*) are a source.

    A challenge shows the true sender of an attempt, even if a log line or an event names another address. It
    also shows attempts that events and logs do not show. A host has only one wire, for all of its PBXs. It is
    read if any of them has ``enabled``.

    ``https_pages``: strangers may read web pages of Asterisk's HTTPS server. By default they may not, and
    every answer by WSS counts. If they may, a sender hides all its guesses by WSS with a few blanks in its
    request, unless a log or an export shows them. So the default does less harm: only answers to strangers
    count, nineteen in nine minutes are free, and the ban closes only the TCP ports of Asterisk. A browser, or
    a new phone that fetches some files, needs fewer answers.
    """

    enabled: bool = True
    https_pages: bool = False


_T = TypeVar("_T")


def _feature_fields(inside: str, like: "Attribute[Any]") -> "list[Attribute[Any]]":
    """Return attrs fields for the tables that features add to ``inside``, made like the field ``like``."""
    return [
        like.evolve(name=table, alias=table, type=module.TABLE, default=Factory(module.TABLE))
        for table, module in street.settings(inside).items()
    ]


def _with_feature_fields(inside: str, _: type, own: "list[Attribute[Any]]") -> "list[Attribute[Any]]":
    return [*own, *_feature_fields(inside, own[-1])]


@frozen
class _Tables:
    """The base class of settings to which features add tables of their own."""

    def of(self, kind: type[_T]) -> _T:
        """Return the table that a feature added here; ``kind`` is the class of its settings."""
        found: _T = getattr(self, next(field.name for field in fields(type(self)) if field.type == kind))
        return found


@frozen(field_transformer=partial(_with_feature_fields, "asterisk"))
class AsteriskSettings(_Tables):
    """``[[asterisk]]``: one PBX, its sources, and the SIP proxies on this host in front of it.

    ``proxies`` are the addresses from which the proxies send to Asterisk. ringfence never bans them; it bans
    the clients of a proxy. ``guests``: the PBX takes calls from strangers without a password. So a stranger
    may send more, and encrypted requests that no event of Asterisk explains are no attempts.
    """

    name: Name = Name("asterisk")
    proxies: tuple[Network, ...] = ()
    guests: bool = False
    ami: AmiSettings = Factory(AmiSettings)
    logs: LogSettings = Factory(LogSettings)
    wire: WireSettings = Factory(WireSettings)


@frozen(field_transformer=partial(_with_feature_fields, "firewall"))
class FirewallSettings(_Tables):
    """``[firewall]``: the firewall, and where and how it drops packets. Features add tables of their own.

    ``backend`` names what drops packets, such as nftables; with ``memory`` (a dry run) nothing is
    dropped. ``interfaces`` are the network interfaces on which packets are dropped; () means all. With
    ``log``, the kernel logs dropped packets. ``max_bans`` is the maximum number of entries in each set of
    bans or networks in the kernel.

    ``scope`` is what a ban covers: every port (``all``), or the SIP ports only (``sip``). A ban on evidence
    that may be forged always covers SIP ports only. ``sip_ports`` are these ports. Without any, ringfence
    finds the ports that Asterisk uses.
    """

    backend: BackendName = BackendName("auto")
    scope: ScopeName = ScopeName("all")
    sip_ports: tuple[SipPort, ...] | None = None
    interfaces: tuple[Interface, ...] = ()
    action: BanAction = BanAction.DROP
    log: bool = False
    max_bans: SetSize = SetSize(262_144)


@frozen
class AllowSettings:
    """``[allow]``: networks, host names and countries that are never banned.

    Loopback and the addresses that this host needs (its own, its gateways and others) need no entry.
    """

    networks: tuple[Network, ...] = ()
    hosts: tuple[HostName, ...] = ()
    countries: tuple[Region, ...] = ()


@frozen
class DenySettings:
    """``[deny]``: networks and countries that are always denied, unless they are allowed."""

    networks: tuple[Network, ...] = ()
    countries: tuple[Region, ...] = ()


_MANAGER_TLS = 5039
"""Asterisk's default port of the manager interface by TLS."""
_SCOPES = {ScopeName("all"): Scope.FULL, ScopeName("sip"): Scope.SIP}
_SCOPE_NAMES = {scope: name for name, scope in _SCOPES.items()}


@frozen
class RuleSettings:
    """``[rules.NAME]``: ``attempts`` attempts of a sender within ``window`` seconds lead to a ban.

    ``ban`` has the durations of bans in seconds: of the first ban, of the second one within 30 days, and so
    on.

    Only some rules have the other settings; for the other rules they are None. ``friends`` replaces
    ``attempts`` for friends (known phones and trunks of this PBX); with 0, the rule never bans them.
    ``addresses`` is how many addresses of a network must take part. ``accounts`` are the decoy accounts.
    ``strangers``: while many addresses attack one account, an address that is no friend is banned after so
    many failures on it. ``scope`` is what a ban of this rule covers: with ``all`` the same as ``scope`` in
    ``[firewall]``, with ``sip`` the SIP ports only.
    """

    enabled: bool
    attempts: Count
    window: Duration
    ban: Ladder
    friends: FriendCount | None = None
    addresses: Count | None = None
    accounts: tuple[Text, ...] | None = None
    strangers: Count | None = None
    scope: ScopeName | None = None

    @classmethod
    def of(cls, rule: Rule) -> "RuleSettings":
        """Return the default settings of a rule."""
        return cls(
            rule.enabled,
            Count(rule.attempts),
            Duration(rule.window),
            Ladder(rule.ban),
            FriendCount(rule.friends) if rule.friends else None,
            Count(rule.addresses) if rule.addresses else None,
            None if rule.accounts is None else tuple(map(Text, sorted(rule.accounts))),
            Count(rule.strangers) if rule.strangers else None,
            _SCOPE_NAMES.get(rule.scope),
        )

    def rule(self, rule: Rule) -> Rule:
        """Return a copy of ``rule`` with these settings in place of its own."""
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
            scope=rule.scope if self.scope is None else _SCOPES[self.scope],
        )


@frozen
class ClaimedSettings:
    """``[claimed]``: bans of unproven addresses, which the sender may have forged.

    ``ban`` has the durations in seconds: of the first ban, of the second one within a day, and so on.
    ``per_minute`` is the maximum number of such new bans a minute.
    """

    ban: Ladder = Ladder(Claimed().ban)
    per_minute: PerMinute = PerMinute(Claimed().per_minute)


@frozen
class StoreSettings:
    """``[store]``: the database of bans and their attempts."""

    path: Path = Path("/var/lib/ringfence/ringfence.db")


@frozen
class ControlSettings:
    """``[control]``: the socket between the command line and the daemon.

    ``admins`` are the users who may send every request, besides root: their names or numbers.
    """

    socket: Path = Path("/run/ringfence/control.sock")
    admins: tuple[UserName, ...] = ()


@frozen
class DisplaySettings:
    """``[display]``: how commands show what they find. ``times`` is the time zone: "utc", or "local"."""

    times: TimesName = TimesName("utc")


def default_rules() -> dict[str, RuleSettings]:
    """Return the default settings of every rule, by the rule's name."""
    return {rule.name: RuleSettings.of(rule) for rule in RULES}


# The tables of features stand before ``display``, which stays the last table.
@frozen(field_transformer=lambda _, own: [*own[:-1], *_feature_fields("", own[-1]), own[-1]])
class Settings(_Tables):
    """All settings. ``rules`` has an entry for every rule."""

    asterisk: tuple[AsteriskSettings, ...] = (AsteriskSettings(),)
    firewall: FirewallSettings = Factory(FirewallSettings)
    allow: AllowSettings = Factory(AllowSettings)
    deny: DenySettings = Factory(DenySettings)
    rules: Mapping[str, RuleSettings] = Factory(default_rules)
    claimed: ClaimedSettings = Factory(ClaimedSettings)
    store: StoreSettings = Factory(StoreSettings)
    control: ControlSettings = Factory(ControlSettings)
    display: DisplaySettings = Factory(DisplaySettings)

    def rule_table(self) -> tuple[Rule, ...]:
        """Return the rules with the settings of this configuration."""
        return tuple(self.rules[rule.name].rule(rule) for rule in RULES)

    def claims(self) -> Claimed:
        """Return the limits of bans on unproven evidence, from ``[claimed]``."""
        return Claimed(tuple(self.claimed.ban), self.claimed.per_minute)

    def plan(self, found_ports: Ports | None) -> FirewallPlan:
        """Return the plan for the firewall's rules, with the rules that settings of features ask for.

        ``found_ports`` are the ports that Asterisk uses, None if they are unknown; the setting ``sip_ports``
        replaces them.
        """
        mine = self.firewall
        ports = found_ports if found_ports is not None else Ports()
        if mine.sip_ports:
            ports = evolve(
                ports,
                udp=tuple(sorted({port.number for port in mine.sip_ports if port.udp})),
                tcp=tuple(sorted({port.number for port in mine.sip_ports if port.tcp})),
            )
        plan = FirewallPlan(
            maxelem=mine.max_bans,
            log_group=GROUP if self.wire else None,
            every_port=mine.scope == "all",
            sip_ports=ports,
            interfaces=tuple(mine.interfaces),
            action=mine.action,
            log=mine.log,
        )
        return self.with_features("with_rules", plan)

    def lists(self) -> Configured:
        """Return the part of the configuration that concerns the allow list and the deny list.

        That is the entries of both lists, what features add, and the maximum number of networks in a set of
        the kernel.
        """
        entries = [
            *((ListKind.ALLOW, text_of(*code_of(network))) for network in self.allow.networks),
            *((ListKind.ALLOW, host) for host in self.allow.hosts),
            *((ListKind.ALLOW, parse_region(region).text) for region in self.allow.countries),
            *((ListKind.DENY, text_of(*code_of(network))) for network in self.deny.networks),
            *((ListKind.DENY, parse_region(region).text) for region in self.deny.countries),
        ]
        configured = Configured(
            entries=tuple(ListEntry(side, what, "", 0.0, None, CONFIGURATION) for side, what in entries),
            most=self.firewall.max_bans,
        )
        return self.with_features("with_lists", configured)

    def with_features(self, change: str, value: _T) -> _T:
        """Return ``value``, changed in turn by the function named ``change`` of each feature that has it."""
        for inside in ("firewall", "asterisk", ""):
            for module in street.settings(inside).values():
                if hasattr(module, change):
                    value = getattr(module, change)(value, self)
        return value

    @property
    def wire(self) -> bool:
        """Whether the kernel's copies of SIP packets are read: at least one PBX has them as a source."""
        return any(pbx.wire.enabled for pbx in self.asterisk)

    def has_pages(self, port: int) -> bool:
        """Whether strangers may get answers other than SIP by TLS at a port, such as web pages.

        A port of the manager interface has such answers.
        """
        return port == _MANAGER_TLS or any(
            pbx.wire.https_pages or port == pbx.ami.port for pbx in self.asterisk
        )

    @property
    def guests(self) -> bool:
        """Whether a PBX takes calls from strangers without a password."""
        return any(pbx.guests for pbx in self.asterisk)

    def without_wire(self) -> "Settings":
        """Return these settings, but with the kernel's copies of SIP packets as a source of no PBX."""
        off = WireSettings(enabled=False)
        return evolve(self, asterisk=tuple(evolve(pbx, wire=off) for pbx in self.asterisk))

    def proxies(self) -> NetworkSet:
        """Return the addresses of the SIP proxies in front of the PBXs."""
        return NetworkSet(network for pbx in self.asterisk for network in pbx.proxies)

    def asterisk_with_logs(self) -> tuple[AsteriskSettings, ...]:
        """Return the settings of each PBX, with the logs that are really read.

        If there is only one PBX, ringfence may look for its logs. If there are several, it reads configured
        logs only, because it would find the same files for each PBX.
        """
        if len(self.asterisk) == 1:
            return self.asterisk
        return tuple(
            evolve(pbx, logs=evolve(pbx.logs, paths=() if pbx.logs.paths is None else pbx.logs.paths))
            for pbx in self.asterisk
        )

    def several_sources(self) -> frozenset[str]:
        """Return the names of the Asterisks with a log or the kernel's copies of packets as a source.

        Their attempts must be deduplicated, because several sources may report the same attempt.
        """
        return frozenset(pbx.name for pbx in self.asterisk_with_logs() if pbx.logs.wanted or self.wire)

    def corroborated(self) -> frozenset[str]:
        """Return the names of the Asterisks with AMI or the kernel's copies of packets as a source.

        For such an Asterisk, these sources can confirm what a log line reports.
        """
        return frozenset(pbx.name for pbx in self.asterisk_with_logs() if pbx.ami.enabled or self.wire)


# -- the keys of the configuration: their paths, and the tables in which they are


KeyPath = tuple[str | int, ...]
"""The path of a key: the names of the tables around it, the outermost first, and then its own name.

A number after the name of a repeated table is the index of an entry, from 0.
"""


@frozen
class Key:
    """A key of the configuration, or a table. ``kind`` is the type of its value."""

    path: KeyPath
    kind: Any

    @property
    def entries(self) -> "type[Any] | None":
        """The class of one entry of a repeated table such as ``[[asterisk]]``; None for everything else."""
        inner = get_args(self.kind)[:1] if get_origin(self.kind) is tuple else ()
        return inner[0] if inner and has(inner[0]) and inner[0] not in HOOKS else None

    @property
    def is_table(self) -> bool:
        """Whether this is a table, and not a key with a value."""
        return self.entries is not None or has(self.kind) or get_origin(self.kind) is Mapping

    @property
    def plain_kind(self) -> Any:  # noqa: ANN401 - a type
        """The plain Python type of the value: ``int`` for ``Port | None``, for example."""
        kind = self.kind
        if get_origin(kind) in {Union, UnionType}:
            kind = next(one for one in get_args(kind) if one is not NoneType)
        while hasattr(kind, "__supertype__"):
            kind = kind.__supertype__
        return kind


ROOT = Key((), Settings)
"""The whole configuration, as a table that contains all others."""


def children_of(key: Key, entries: int = 1) -> Iterator[Key]:
    """Yield the keys and tables directly in a table; nothing for a key that is no table.

    The children of a repeated table are its entries. ``entries`` is how many of them to yield.
    """
    if (inner := key.entries) is not None:
        yield from (Key((*key.path, number), inner) for number in range(entries))
    elif get_origin(key.kind) is Mapping:  # [rules], which contains a table for each rule
        yield from (Key((*key.path, name), RuleSettings) for name in default_rules())
    elif key.is_table:
        yield from (Key((*key.path, field.name), field.type) for field in _fields_of(key))


def _fields_of(key: Key) -> "list[Attribute[Any]]":
    """Return the fields of a table. For the table of a rule, omit the keys that this rule does not have."""
    if key.kind is not RuleSettings:
        return list(fields(key.kind))
    rule = default_rules()[str(key.path[-1])]
    return [field for field in fields(RuleSettings) if getattr(rule, field.name) is not None]


def keys_of(table: Key = ROOT) -> Iterator[Key]:
    """Yield every key in a table and in the tables that it contains.

    Of a repeated table, only the keys of the first entry are yielded.
    """
    for child in children_of(table):
        if child.is_table:
            yield from keys_of(child)
        else:
            yield child


def text_of_key(path: KeyPath) -> str:
    """Return a path as error messages write it: ``asterisk[0].ami.port``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
