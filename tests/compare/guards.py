"""The guards that `make compare` measures: each with its version, and with its best documented settings.

The rivals are unpacked from their Debian packages. All guard the same Asterisk, and ban after five guesses
within ten minutes. CrowdSec's scenario has a rule of its own: more than five, of which one leaks each ten
seconds.
"""

import re
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from ipaddress import IPv4Network
from pathlib import Path
from typing import Protocol, Self

from attrs import frozen
from tests.bench.busy import PHONES
from tests.bench.fail2ban import Fail2ban
from tests.bench.testbed import defended, until_defended
from tests.compare.busy import register
from tests.compare.crowdsec import AcquiringCrowdSec, Bouncer
from tests.support import crowdsec
from tests.support.daemon import Guard as Daemon
from tests.support.daemon import until
from tests.support.fail2ban import tree as fail2ban_tree
from tests.support.guarded import guarded, preferred
from tests.support.lab import Lab
from tests.support.manybans import fill
from tests.support.netns import inside

import ringfence

Bans = Sequence[IPv4Network]

ALL_PORTS = "all ports"
_DAY = 86_400
_KNOWN_FOR = 2 * _DAY
"""The seconds for which ringfence has known the phones on later days."""
_BAN = "INSERT INTO bips (ip, jail, timeofban, bantime, bancount, data) VALUES (?, ?, ?, ?, 1, '{}')"
"""A row in fail2ban's database."""
_REST = 2.0
"""Seconds in which ringfence has certainly handled what its sources report."""


class Running(Protocol):
    """A guard that was prepared, and runs while the context lasts."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def pids(self) -> Sequence[int]:
        """Its processes."""

    def settle(self) -> None:
        """Wait until it has read everything, so that one trial does not affect the next."""

    def banned(self) -> Mapping[str, str]:
        """Return the banned addresses, and for what each is banned."""


@frozen
class Guard:
    """A guard as a value: ``prepare`` writes its files, and its context starts it.

    ``prepare`` has the laboratory, a folder, and the bans that its database has from its last run.
    ``missing`` is the reason why it cannot run here; empty if it can. ``prepare_later`` prepares it as if it
    had known the phones of a company for days; None: it learns nothing about phones.
    """

    name: str
    version: str
    settings: str
    prepare: Callable[[Lab, Path, Bans], Running]
    missing: str = ""
    prepare_later: Callable[[Lab, Path, Bans], Running] | None = None

    @property
    def title(self) -> str:
        """The name and the version."""
        return f"{self.name} {self.version}".strip()


class _Nobody:
    """No guard at all."""

    def __init__(self, *_: object) -> None:
        self.pids: Sequence[int] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def settle(self) -> None:
        """Return at once."""

    def banned(self) -> Mapping[str, str]:
        """Return nothing."""
        return {}


class _Ringfence:
    """ringfence with its defaults and nftables; it reads AMI, the log and the wire."""

    def __init__(self, lab: Lab, folder: Path, bans: Bans) -> None:
        self._lab = lab
        self._folder = folder
        self._stack = ExitStack()
        self._daemon: Daemon | None = None
        if bans:
            fill(folder / "ringfence.db", bans)

    def __enter__(self) -> Self:
        with self._stack as stack:
            self._daemon = stack.enter_context(
                guarded(self._lab, self._folder, firewall=defended("nftables"))
            )
            self._begin()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _begin(self) -> None:
        """Set the priority of the daemon, and wait until it defends Asterisk."""
        preferred(self._guard)
        until_defended(self._guard)

    @property
    def pids(self) -> Sequence[int]:
        """The daemon."""
        return (self._guard.pid,)

    def settle(self) -> None:
        """Wait for the sources, which are late by less than that."""
        time.sleep(_REST)

    def banned(self) -> Mapping[str, str]:
        """Return the bans with their scopes."""
        scopes = {"full": ALL_PORTS}
        return {row["address"]: scopes.get(row["scope"], row["scope"]) for row in self._guard.bans()}

    @property
    def _guard(self) -> Daemon:
        assert self._daemon is not None
        return self._daemon


class _LaterRingfence(_Ringfence):
    """ringfence that has known a company's phones for ``_KNOWN_FOR``."""

    def _begin(self) -> None:
        super()._begin()
        register(self._lab)
        self.settle()
        self._guard.stop()
        self._lab.asterisk.forget_phones()  # each account may have one contact
        with closing(sqlite3.connect(self._folder / "ringfence.db")) as database, database:
            database.execute("UPDATE friends SET since = since - ?", (_KNOWN_FOR,))
            (known,) = database.execute("SELECT count(DISTINCT account) FROM friends").fetchone()
        if known < PHONES:
            raise RuntimeError(f"the database knows {known} phones of {PHONES}")
        self._guard.start()
        super()._begin()


class _Fail2ban:
    """A fail2ban from an unpacked package, with one of its actions."""

    def __init__(self, root: Path, action: str, lab: Lab, folder: Path, bans: Bans) -> None:
        database = folder / "fail2ban.sqlite3"
        self._server = Fail2ban(
            lab, root, folder, action=action, bantime=_DAY if bans else 3_600, database=str(database)
        )
        if bans:
            self._fill(database, bans)

    def _fill(self, database: Path, bans: Bans) -> None:
        with self._server:  # it makes the tables and the jail
            pass
        now = int(time.time())
        rows = [(str(ban.network_address), "asterisk", now, _DAY) for ban in bans]
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.executemany(_BAN, rows)

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__(None, None, None)

    @property
    def pids(self) -> Sequence[int]:
        """The server."""
        return (self._server.pid,)

    def settle(self) -> None:
        """Wait until it has read Asterisk's log."""
        self._server.settle()

    def banned(self) -> Mapping[str, str]:
        """Return the bans, all of which are full."""
        return dict.fromkeys(self._server.banned(), ALL_PORTS)


class _CrowdSec:
    """CrowdSec with its collection for Asterisk, and its firewall bouncer with nftables."""

    def __init__(self, lab: Lab, folder: Path, bans: Bans) -> None:
        self._lab = lab
        self._api = AcquiringCrowdSec(folder / "crowdsec", lab.asterisk.logs / "ringfence")
        self._bouncer = Bouncer(folder, self._api, lab)
        if bans:
            with inside(lab.network.pbx):
                self._api.start()
                self._api.import_bans([str(ban.network_address) for ban in bans])
            self._api.kill()

    def __enter__(self) -> Self:
        with inside(self._lab.network.pbx):
            self._api.start()
            until(lambda: self._api.reads, "CrowdSec reads the log")
        self._bouncer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bouncer.stop()
        self._api.kill()

    @property
    def pids(self) -> Sequence[int]:
        """CrowdSec and the bouncer."""
        return (self._api.pid, self._bouncer.pid)

    def settle(self) -> None:
        """Wait until the kernel's set is the same twice, further apart than two questions of the bouncer."""
        before: object = None
        while before != (before := self.banned()):
            time.sleep(_REST)

    def banned(self) -> Mapping[str, str]:
        """Return the addresses in the kernel's set."""
        return dict.fromkeys(self._bouncer.banned(), ALL_PORTS)


def version_of(root: Path, package: str) -> str:
    """Return the version of a package that was unpacked into ``root``; empty without it."""
    for path in root.glob(f"{package}_*.deb"):
        return path.name.split("_")[1].replace("%3a", ":")
    return ""


def guards() -> Sequence[Guard]:
    """Return all guards, ringfence first and no guard last."""
    old, new = fail2ban_tree(), fail2ban_tree().with_name("fail2ban-newest")
    ipset = "iptables-ipset-proto6-allports[name=asterisk, protocol=all, blocktype=DROP]"
    nftables = 'nftables[type=allports, name=asterisk, protocol=all, blocktype=drop, addr_options=""]'
    return (
        Guard(
            "ringfence",
            ringfence.__version__,
            "its defaults, with nftables; it reads AMI, the log and the wire",
            _Ringfence,
            prepare_later=_LaterRingfence,
        ),
        _fail2ban_of(old, ipset, "Debian 12's"),
        _fail2ban_of(new, nftables, "the newest in Debian, with sets of addresses (by default of intervals)"),
        _crowdsec(),
        Guard("no guard", "", "what the attacks do without one", _Nobody),
    )


def _fail2ban_of(root: Path, action: str, what: str) -> Guard:
    version = version_of(root, "fail2ban")
    return Guard(
        "fail2ban",
        version,
        f"{what}: backend pyinotify, maxretry 5, findtime 600, bantime 3600, all ports and protocols; it "
        f"reads `messages`, as its jail does by default; action `{action}`",
        lambda lab, folder, bans: _Fail2ban(root, action, lab, folder, bans),
        "" if version else f"`make compare` unpacks it into {root}",
    )


def _crowdsec() -> Guard:
    root = crowdsec.tree()
    version, bouncer = version_of(root, "crowdsec"), version_of(Bouncer.tree(), "crowdsec-firewall-bouncer")
    return Guard(
        "CrowdSec",
        version,
        f"with crowdsec-firewall-bouncer {bouncer}, both Debian 12's: the collection crowdsecurity/asterisk "
        "of the package's own hub (the sixth guess is a ban, and one leaks each 10 s), bans of 4 h; the "
        "bouncer uses nftables, and asks each second (update_frequency, by default 10 s); CrowdSec reads a "
        "log with security events, which its parser needs",
        _CrowdSec,
        "" if version and bouncer else f"`make compare` unpacks it into {root} and {Bouncer.tree()}",
    )


def in_kernel(lab: Lab, bans: Bans) -> int:
    """Return how many of these bans the kernel has, whatever guard put them there."""
    listed = lab.run("nft", "list", "ruleset") + lab.run("ipset", "save")
    found = set(re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", listed))
    return sum(str(ban.network_address) in found for ban in bans)
