"""All targets of the fuzzer by name, and the readers that it leaves out."""

from collections.abc import Mapping

from tests.fuzz import asterisk, daemon, documents, wire

TARGETS = {target.name: target for part in (asterisk, wire, documents, daemon) for target in part.TARGETS}

_OWN = "root or the daemon wrote the file, into a folder of its own"
_STORED = "the daemon wrote the value into its database"
_ANSWER = "the daemon's own answer, which the target control-answer has read"
_COMPARED = "the bytes are compared with others, and not read"

LEFT_OUT: Mapping[str, str] = {
    "cli/bans.py": _ANSWER,
    "cli/output.py": _ANSWER,
    "guard/offline.py": "JSON that the same process has written",
    "features/report/guard.py": _STORED,
    "features/fence/firewall.py": _STORED,
    "features/fence/links.py": _STORED,
    "sources/log_rotation.py": _STORED,
    "store/tables.py": _STORED,
    "detect/history.py": "numbers that the detector itself has packed",
    "guard/ban_list.py": "numbers that the daemon itself has packed",
    "firewall/nftables/static_sets.py": "numbers that the daemon itself has packed",
    "features/setup/journal.py": _OWN,
    "config/effective.py": "ringfence.toml, after the target toml has read it",
    "features/setup/plan.py": "ringfence.toml, which the target toml reads",
    "features/setup/texts.py": "ringfence.toml, which the target toml reads",
    "features/feeds/command.py": "ringfence.toml, which the target toml reads",
    "features/feeds/settings.py": "ringfence.toml, which the target toml reads",
    "features/fleet/setup.py": "ringfence.toml, which the target toml reads",
    "features/fleet/cscli.py": "root's own program wrote it",
    "features/notify/sender.py": "the daemon wrote the request",
    "features/notify/runner.py": "the daemon wrote the request",
    "features/fleet/decisions.py": "numbers that the daemon itself has packed",
    "features/fence/services.py": _COMPARED,
    "features/setup/proof.py": _COMPARED,
    "firewall/probe.py": _COMPARED,
    "host/speech.py": _COMPARED,
    "firewall/ipset/watch.py": "an answer of the kernel with one fixed layout",
    "firewall/nftables/watch.py": "only the kind of each message is read, by the target netlink",
    "sources/nflog.py": "the target nflog reads the same bytes",
}
"""Modules that turn bytes into values, but read none from outside, and why."""
