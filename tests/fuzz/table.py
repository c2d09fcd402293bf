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

_SENT = "the daemon wrote these bytes, for the kernel or for a server"
_READ = "it only waits for the bytes; a function that the corpus enters reads them"
_OF_PUBLISH = "the target's own page calls the functions that read the head"

NOT_ENTERED: Mapping[str, str] = {
    "control_server.py:_Connection._next_part": "the parts of an answer, which a thread makes",
    "features/feeds/fetcher.py:write": _SENT,
    "features/fleet/api.py:Api._request": _SENT,
    "features/notify/delivery.py:_exchange": _READ,
    "features/notify/delivery.py:_reap": "bytes are only in the type of the process",
    "features/publish/guard.py:Publisher._is_authorized": _OF_PUBLISH,
    "features/publish/guard.py:Publisher._page.answer": _OF_PUBLISH,
    "firewall/ipset/messages.py:_create": _SENT,
    "firewall/ipset/messages.py:_many": _SENT,
    "firewall/ipset/messages.py:_message": _SENT,
    "firewall/nftables/elements.py:ElementLayout.write": _SENT,
    "firewall/nftables/elements.py:_elements": _SENT,
    "firewall/nftables/messages.py:_expression": _SENT,
    "firewall/nftables/messages.py:_nest": _SENT,
    "netlink/connection.py:NetlinkInterruptedError.__init__": "it keeps answers that were read",
    "netlink/connection.py:NetlinkConnection._exchange": _SENT,
    "netlink/connection.py:NetlinkConnection._send_batch": _SENT,
    "netlink/connection.py:NetlinkConnection.request": _SENT,
    "netlink/connection.py:NetlinkConnection.stream": _READ,
    "netlink/connection.py:NetlinkConnection.transact": _SENT,
    "netlink/connection.py:attribute": _SENT,
    "netlink/connection.py:message": _SENT,
    "parse/formats.py:_at": "the levels in a table of the module itself",
    "sources/ami.py:_Protocol._decode": _READ,
    "sources/journal.py:_collect_errors": _READ,
    "sources/wire.py:CopyReader.read": "the interface of a reader, which does nothing",
}
"""Functions of the targets' modules that get bytes and that no corpus enters, and why."""
