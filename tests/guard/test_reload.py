"""Every key of the configuration on reload: it takes effect, or the answer names it as one for a restart.

The keys are found by introspection of the settings. A new key fails here until it has a value below and
reload applies it.
"""

import asyncio
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import attrs
import pytest
from tests.support.asterisk import SECRET
from tests.support.daemon import toml

from ringfence.clock import Clock
from ringfence.config import loader
from ringfence.config.schema import RuleSettings, Settings
from ringfence.detect.detector import Detector
from ringfence.features.account.guard import LoginWatch
from ringfence.features.feeds.denied import Feeds
from ringfence.features.feeds.settings import TABLE
from ringfence.features.fence.firewall import fence_of
from ringfence.features.notify.guard import Notifier
from ringfence.firewall.memory import MemoryBackend
from ringfence.guard.daemon import build_daemon
from ringfence.guard.firewall_side import ChosenBackend, build_firewall_side
from ringfence.host.connections import ConnectionTable
from ringfence.store.database import Store

FILTER: dict[str, object] = {
    "name": "other",
    "events": ["ban"],
    "rules": ["guess"],
    "severity": "critical",
    "quiet": "22:00-07:00",
    "digest": "11m",
    "timeout": "11s",
}
"""Values for the keys of every channel."""
CUSTOM = {"name": "menu", "pattern": "refused {address}"}
RULES = {"friends": "guess", "addresses": "prefix", "accounts": "decoy", "strangers": "distributed"}
"""The rule to use for a key that only some rules have."""

VALUES: dict[str, object] = {
    "account.elsewhere": "block",
    "asterisk.name": "other",
    "bare_address.domains": ["pbx.example.org"],
    "bare_address.mode": "observe",
    "asterisk.proxies": ["192.0.2.5"],
    "asterisk.guests": True,
    "asterisk.ami.enabled": False,
    "asterisk.ami.host": "127.0.0.2",
    "asterisk.ami.port": 2,
    "asterisk.ami.username": "someone",
    "asterisk.ami.secret": "another",
    "asterisk.ami.secret_file": "{folder}/secret",
    "asterisk.ami.tls": True,
    "asterisk.ami.tls_ca": "{folder}/secret",
    "asterisk.ami.tls_verify": False,
    "asterisk.ami.server_users": ["nobody"],
    "asterisk.logs.paths": ["/var/log/other"],
    "asterisk.logs.timezone": "UTC",
    "asterisk.logs.journal": True,
    "asterisk.logs.journal_users": ["nobody"],
    "asterisk.logs.custom.name": "voicemail",
    "asterisk.logs.custom.level": "WARNING",
    "asterisk.logs.custom.file": "app_verbose.c",
    "asterisk.logs.custom.pattern": "{{address}} refused",
    "asterisk.wire.enabled": True,
    "asterisk.wire.https_pages": True,
    "asterisk.hep.enabled": True,
    "asterisk.hep.port": 9_061,
    "asterisk.hep.tls_ports": [5_071],
    "asterisk.hep.wss_ports": [8_443],
    "firewall.backend": "nftables",
    "firewall.scope": "sip",
    "firewall.sip_ports": ["5070/udp"],
    "firewall.interfaces": ["lo"],
    "firewall.action": "port-unreachable",
    "firewall.log": True,
    "firewall.max_bans": 5_000,
    "firewall.limit.mode": "off",
    "firewall.limit.rate": 77,
    "firewall.limit.burst": 777,
    "firewall.ration.mode": "off",
    "firewall.ration.rate": 7,
    "firewall.ration.asking": "off",
    "firewall.ration.asking_rate": 7,
    "allow.networks": ["203.0.113.0/24"],
    "allow.hosts": ["phone.example.org"],
    "allow.countries": ["AS64496"],
    "deny.networks": ["203.0.113.0/24"],
    "deny.countries": ["AS64496"],
    "feeds.name": "other",
    "feeds.url": "https://lists.example.org/other",
    "feeds.file": "{folder}/list",
    "feeds.format": "csv",
    "feeds.key": "network",
    "feeds.every": "2h",
    "feeds.max_age": "3d",
    "feeds.key_file": "{folder}/secret",
    "fence.mode": "observe",
    "fence.networks": ["203.0.113.0/24"],
    "fence.countries": ["AS64496"],
    "fence.also": ["443/tcp"],
    "fence.also_ssh": True,
    "geo.database": "{folder}/other.mmdb",
    "crowdsec.url": "http://127.0.0.1:8080",
    "crowdsec.machine": "other",
    "crowdsec.password_file": "/run/other.password",
    "crowdsec.key_file": "/run/other.key",
    "crowdsec.interval": "20s",
    "crowdsec.allow_http": True,
    "rules.enabled": False,
    "rules.attempts": 11,
    "rules.window": "11m",
    "rules.ban": "11h",
    "rules.friends": 1_111,
    "rules.addresses": 7,
    "rules.accounts": ["trap"],
    "rules.scope": "all",
    "rules.strangers": 5,
    "claimed.ban": "11m",
    "claimed.per_minute": 11,
    **{
        f"notify.{kind}.{key}": value for kind in ("mail", "apprise", "hook") for key, value in FILTER.items()
    },
    "notify.mail.to": ["admin@example.com"],
    "notify.mail.sender": "pbx@example.com",
    "notify.mail.host": "127.0.0.2",
    "notify.mail.port": 587,
    "notify.mail.security": "starttls",
    "notify.mail.tls_ca": "{folder}/secret",
    "notify.mail.tls_verify": False,
    "notify.mail.username": "someone",
    "notify.mail.password": "another",
    "notify.mail.password_file": "{folder}/secret",
    "notify.apprise.config": "{folder}/secret",
    "notify.apprise.tag": "oncall",
    "notify.apprise.command": "/opt/apprise",
    "notify.apprise.socket": "/run/other.socket",
    "notify.hook.command": ["/bin/true"],
    "notify.hook.socket": "/run/other.socket",
    "notify.report": "weekly",
    "store.path": "{folder}/other.db",
    "control.socket": "{folder}/other.sock",
    "control.admins": ["root"],
    "phones.gone_after": "30m",
    "metrics.listen": "127.0.0.1:9721",
    "metrics.remote": True,
    "metrics.hosts": ["pbx.example.org"],
    "publish.token": "another-token-of-a-router",
    "publish.token_file": "{folder}/token",
    "publish.max_entries": 77,
    "display.times": "local",
}
CROWDSEC = [key for key in VALUES if key.startswith("crowdsec.")]
RESTART = {
    "asterisk.wire.enabled": "[asterisk.wire]",
    "asterisk.hep.enabled": "[asterisk.hep]",
    "firewall.backend": "[firewall] backend",
    "store.path": "[store]",
    **dict.fromkeys(CROWDSEC, "[crowdsec]"),
    "bare_address.domains": "[bare_address]",
    "bare_address.mode": "[bare_address]",
    "control.socket": "[control]",
    "control.admins": "[control]",
    "phones.gone_after": "[phones]",
    "metrics.listen": "[metrics]",
    "metrics.remote": "[metrics]",
    "metrics.hosts": "[metrics]",
    "publish.token": "[publish]",
    "publish.token_file": "[publish]",
    "publish.max_entries": "[publish]",
}
"""The names in the answer for keys that only a restart changes."""

ONLY_OTHERS = {"display.times"}
"""Keys that only the commands use."""


def keys(kind: type, path: str = "") -> Iterator[str]:
    """Yield the path of every key below a class of settings."""
    for field in attrs.fields(kind):
        name, hint = field.name, field.type
        below = next(
            (one for one in (hint, *inner(hint)) if getattr(one, "__name__", "").endswith("Settings")), None
        )
        if below is None:
            yield f"{path}{name}"
        else:
            yield from keys(below, f"{path}{name}.")


def inner(hint: Any) -> Iterator[Any]:  # noqa: ANN401 - whatever typing has
    """Yield the parts of a type: the values of a mapping, the entries of a tuple, the members of a union."""
    for one in get_args(hint):
        yield one
        if get_origin(one) is not None:
            yield from inner(one)


KEYS = sorted(keys(Settings))


class Reloading:
    """A daemon with its real parts, none of them running, so that a test can compare their settings."""

    def __init__(self, folder: Path, readers: Mapping[str, object] | None = None) -> None:
        self.file = folder / "ringfence.toml"
        (folder / "secret").write_text("from a file", "utf-8")
        (folder / "token").write_text("a-token-from-a-file\n", "utf-8")
        self.tree: dict[str, Any] = {
            "asterisk": [
                {
                    "name": "pbx",
                    "ami": {"port": 1, "secret": SECRET},
                    "logs": {"paths": ["/var/log/one"], "custom": [CUSTOM]},
                    **(readers or {"wire": {"enabled": False}}),
                }
            ],
            "firewall": {"backend": "memory", "limit": {"mode": "observe"}},
            "bare_address": {"domains": ["one.example.org"]},
            "feeds": [
                {"name": "one", "url": "https://lists.example.org/one", "format": "json", "key": "address"}
            ],
            "geo": {"database": str(folder / "one.mmdb")},
            "crowdsec": {
                "url": "http://127.0.0.1:1",
                "machine": "one",
                "password_file": "/run/one.password",
                "key_file": "/run/one.key",
            },
            "notify": {
                "mail": [{"to": ["root"], "username": "u", "password": "p"}],
                "apprise": [{"config": "/one.yml"}],
                "hook": [{"command": ["/bin/false"]}],
            },
            "store": {"path": str(folder / "one.db")},
            "control": {"socket": str(folder / "one.sock")},
            "metrics": {"listen": "127.0.0.1:9722"},
            "publish": {"token": "a-token-of-the-first-router"},
        }
        self.write()
        found = loader.load(self.file)
        clock = Clock()
        store = Store.open(found.store.path, owner=True)
        chosen = ChosenBackend(MemoryBackend(), "")
        detector = Detector(found.rule_table())
        self.side = build_firewall_side(found, store, detector, chosen, clock)
        self.daemon = build_daemon(self.file, found, self.side, ConnectionTable(), {})

    def write(self) -> None:
        """Write the configuration."""
        self.file.write_text(toml(self.tree), "utf-8")

    def set(self, key: str, value: object) -> None:
        """Set one key of the file; a key of the rules is set for a rule that has it."""
        *path, last = key.split(".")
        if path == ["rules"]:
            path.append(RULES.get(last, "guess"))
        at: Any = self.tree
        for name in path:
            at = at.setdefault(name, {})
            at = at[0] if isinstance(at, list) else at
        at[last] = value
        if key == "asterisk.ami.secret_file":
            del at["secret"]
        if key == "notify.mail.password_file":
            del at["password"]
        if key == "publish.token_file":
            del at["token"]

    def state(self) -> Mapping[str, object]:
        """Return the settings that each part works with."""
        daemon, side = self.daemon, self.side
        [notifier] = [one for one in daemon.features.all if isinstance(one, Notifier)]
        [logins] = [one for one in daemon.features.all if isinstance(one, LoginWatch)]
        return {
            "elsewhere": logins._elsewhere,
            "rules": side.detector.rules,
            "claims": side.detector._claims.terms,
            "several": side.detector._attribution._several,
            "plan": side.kernel.backend.plan,
            "fence": fence_of(side).settings,
            "lists": side.exempt.lists._configured,
            "feeds": [
                feed.source
                for other in side.exempt.lists.others
                if isinstance(other, Feeds)
                for feed in other._settings.of(TABLE)
            ],
            "sources": [pbx.settings for pbx in daemon._sources._pbxs.values()],
            "wire": daemon._reloader._pipeline.wire_asterisk,
            "channels": [outbox.settings for outbox in notifier._outboxes],
            "reports": notifier.report_channels(),
        }


Came = tuple[Mapping[str, object], Mapping[str, object], str]


def reloaded(folder: Path, key: str, value: object) -> Came:
    """Return the parts' settings before and after a key is changed, and the notes of the answer."""
    return asyncio.run(_reloaded(folder, key, value))


async def _reloaded(folder: Path, key: str, value: object) -> Came:
    reloading = Reloading(folder)
    reloading.daemon._reloader.reload()
    before = reloading.state()
    reloading.set(key, value)
    reloading.write()
    answer = reloading.daemon._reloader.reload()
    after = reloading.state()
    assert answer.refused == ()
    return before, after, " ".join(answer.notes)


def test_every_key_is_tried_here() -> None:
    """Every key of the settings has a value here, and every key of a rule belongs to some rule."""
    assert set(KEYS) == set(VALUES)
    assert {field.name for field in attrs.fields(RuleSettings)} == {
        key.removeprefix("rules.") for key in KEYS if key.startswith("rules.")
    }


@pytest.mark.parametrize("key", KEYS)
def test_a_changed_key_takes_effect_or_needs_a_restart(tmp_path: Path, key: str) -> None:
    """A changed key takes effect at once, or the answer names it as one for a restart."""
    value = VALUES[key]
    value = value.format(folder=tmp_path) if isinstance(value, str) else value
    before, after, notes = reloaded(tmp_path, key, value)

    if key in RESTART:
        assert f"{RESTART[key]} changed: restart ringfence" in notes
        assert before["plan"] == after["plan"]
    elif key in ONLY_OTHERS:
        assert (before, notes) == (after, "")
    else:
        assert {part for part in before if before[part] != after[part]}
        assert "restart" not in notes


@pytest.mark.parametrize("key", ["asterisk.wire.enabled", "asterisk.hep.enabled"])
def test_a_reader_that_is_switched_off_gets_its_packets_until_the_restart(tmp_path: Path, key: str) -> None:
    """The rules that copy packets stay until their reader ends, or its silence would disprove true lines."""

    async def switched_off() -> tuple[object, ...]:
        reloading = Reloading(tmp_path, {"wire": {"enabled": True}, "hep": {"enabled": True}})
        reloading.daemon._reloader.reload()
        plans = [reloading.state()["plan"]]
        reloading.set(key, value=False)
        reloading.write()
        for _ in range(2):
            answer = reloading.daemon._reloader.reload()
            [note] = answer.notes
            assert RESTART[key] in note
            assert note.endswith(" changed: restart ringfence")
            plans.append(reloading.state()["plan"])
        reloading.set(key, value=True)
        reloading.write()
        assert reloading.daemon._reloader.reload().notes == ()
        return (*plans, reloading.state()["plan"])

    first, *others = asyncio.run(switched_off())

    assert others == [first] * 3


def test_a_pbx_that_returns_has_its_reader_again(tmp_path: Path) -> None:
    """A PBX with an export may be removed and put back by two reloads; its packets are copied as before."""

    async def removed_and_restored() -> tuple[object, object]:
        reloading = Reloading(tmp_path, {"wire": {"enabled": True}, "hep": {"enabled": True}})
        [pbx] = reloading.tree["asterisk"]
        other = {"name": "other", "ami": {"port": 2, "secret": SECRET}}
        plans = []
        for pbxs in ([pbx, other], [other], [pbx, other]):
            reloading.tree["asterisk"] = pbxs
            reloading.write()
            assert reloading.daemon._reloader.reload().refused == ()
            plans.append(reloading.state()["plan"])
        return plans[0], plans[-1]

    before, after = asyncio.run(removed_and_restored())

    assert before == after


def test_the_wire_follows_the_name_of_its_asterisk(tmp_path: Path) -> None:
    """After a change of its Asterisk's name, the wire's events belong to the new name, as AMI's events do."""
    before, after, _ = reloaded(tmp_path, "asterisk.name", "other")

    assert (before["wire"], after["wire"]) == ("pbx", "other")
    assert after["several"] == {"other"}


def test_a_reload_whose_modules_are_unreadable_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload that cannot load a module which it needs is refused with the reason, and all parts stay."""

    async def refused() -> Came:
        reloading = Reloading(tmp_path)
        reloading.daemon._reloader.reload()
        before = reloading.state()
        monkeypatch.setitem(sys.modules, "ringfence.sources.journal", None)  # as an import that fails
        reloading.set("asterisk.logs.journal", value=True)
        reloading.set("firewall.scope", "sip")
        reloading.write()
        answer = reloading.daemon._reloader.reload()
        after = reloading.state()
        monkeypatch.undo()
        assert reloading.daemon._reloader.reload().refused == ()
        return before, after, " ".join(answer.refused)

    before, after, reasons = asyncio.run(refused())

    assert "cannot load what this configuration needs: import of ringfence.sources.journal halted" in reasons
    assert before == after
