"""The pinned rules: the folders of tests/firewall/rulesets, and the rules that both backends make of them.

The README there explains the files of a folder. ``python -m tests.support.rulesets`` writes the expected
texts again. They depend on no kernel, no program and no clock.
"""

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from ringfence.config import loader
from ringfence.features.fence.settings import FenceSettings, ports_of
from ringfence.features.fence.stage import FenceFilter
from ringfence.firewall.contract import FirewallPlan, Fragments
from ringfence.firewall.ipset.iptables import changes
from ringfence.firewall.ipset.iptables_rules import wanted_rules
from ringfence.firewall.ipset.messages import Command, _Attr, _Data
from ringfence.firewall.ipset.sets import create_set, set_specs
from ringfence.firewall.limits import Until
from ringfence.firewall.nftables.ruleset import BanSet, Ruleset, default_ban_sets, ruleset, ruleset_text
from ringfence.firewall.ports import Ports
from ringfence.netlink.connection import integer, nested, parse, string
from ringfence.values.ban import Scope

ROOT = Path(__file__).parent.parent / "firewall" / "rulesets"
Texts = Mapping[str, str | None]
"""The text of each file by its name; None: the file must not exist."""


@frozen
class Found:
    """The daemon's findings on a host, as ``found.toml`` states them."""

    ports: Ports | None = None
    containers: tuple[str, ...] = ()
    friends_known: bool = True
    banned: tuple[str, ...] = ()
    versions: tuple[int, ...] = (4, 6)
    fragments: str = Fragments.REASSEMBLED
    inner: bool = True
    tracking: bool = True


@frozen
class Pinned:
    """The configuration in a folder, and the host for which its rules are."""

    folder: Path

    @property
    def found(self) -> Found:
        """The daemon's findings on this host."""
        path = self.folder / "found.toml"
        tree: dict[str, Any] = tomllib.loads(path.read_text("utf-8")) if path.exists() else {}
        if "ports" in tree:
            tree["ports"] = Ports(**{name: tuple(numbers) for name, numbers in tree["ports"].items()})
        return Found(**tree)

    @property
    def plan(self) -> FirewallPlan:
        """The plan of a daemon with this configuration on this host, without what the kernel refuses.

        The fence was started.
        """
        settings, found = loader.load(self.folder / "ringfence.toml", {}, secrets=False), self.found
        containers = frozenset(map(ip_address, found.containers))
        plan = evolve(settings.plan(found.ports), containers=containers)
        fence = settings.of(FenceSettings)
        also = ports_of(fence.also)
        plan = plan.adding(FenceFilter(fence.mode, also, also))
        plan = plan if found.friends_known else plan.observing(Until.FRIENDS)
        return evolve(plan, new_only=plan.new_only and found.tracking)

    def nftables(self) -> Ruleset:
        """Return the rules of nftables."""
        found = self.found
        banned = map(ip_network, found.banned)
        bans = {BanSet(scope, one.version, one.prefixlen) for one in banned for scope in Scope}
        fragments = Fragments(found.fragments)
        return ruleset(self.plan, default_ban_sets() | bans, inner=found.inner, fragments=fragments)

    def nftables_texts(self) -> Texts:
        """Return the text for nft. The mark is a hash, which another order of the same code would change."""
        rules = self.nftables()
        return {"nftables.txt": ruleset_text(rules).replace(rules.mark, "ringfence MARK")}

    def ipset_texts(self) -> Texts:
        """Return the texts for both iptables-restore programs, and the sets."""
        found, plan = self.found, self.plan
        sets = (
            _set_text(create_set(spec, plan.maxelem))
            for version in found.versions
            for spec in set_specs(version)
        )
        texts: dict[int, str | None] = {4: None, 6: None}
        for version in found.versions:
            rules = wanted_rules(plan, version, fragments=Fragments(found.fragments))
            texts[version] = "".join(changes({}, rules))
        return {"ipset.txt": "".join(sets), "iptables.txt": texts[4], "ip6tables.txt": texts[6]}

    def difference(self, texts: Texts) -> str:
        """Return the difference between the pinned files and ``texts``, empty if they are equal."""
        return "".join(line for name, text in texts.items() for line in self._difference(name, text))

    def _difference(self, name: str, text: str | None) -> Iterator[str]:
        path = self.folder / name
        pinned = path.read_text("utf-8") if path.exists() else ""
        where = str(path.relative_to(ROOT.parent.parent.parent))
        before, after = (one.splitlines(keepends=True) for one in (pinned, text or ""))
        return difflib.unified_diff(before, after, where, f"{where} (now)")

    def write(self) -> None:
        """Write the texts as the expected ones."""
        for name, text in {**self.nftables_texts(), **self.ipset_texts()}.items():
            path = self.folder / name
            if text is None:
                path.unlink(missing_ok=True)
            else:
                path.write_text(text, "utf-8")


def _set_text(request: bytes) -> str:
    """Return a request that makes a set in the notation of ``ipset save``."""
    top = parse(request, Command.CREATE)
    data = nested(top, _Attr.DATA)
    family = {2: "inet", 10: "inet6"}[integer(top, _Attr.FAMILY)]
    words = [f"create {string(top, _Attr.SETNAME)} {string(top, _Attr.TYPENAME)} family {family}"]
    words += [
        f"{key.name.lower()} {integer(data, key)}"
        for key in (_Data.HASHSIZE, _Data.MAXELEM, _Data.NETMASK, _Data.TIMEOUT)
        if key in data
    ]
    words += ["counters"] if _Data.CADT_FLAGS in data else []
    return f"{' '.join(words)}\n"


FOLDERS = {path.parent.name: Pinned(path.parent) for path in sorted(ROOT.glob("*/ringfence.toml"))}

if __name__ == "__main__":
    for one in FOLDERS.values():
        one.write()
