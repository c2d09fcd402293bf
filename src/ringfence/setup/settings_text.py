"""The text of ``ringfence.toml`` that setup writes."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ringfence.model import Network

_HEAD = """\
# ringfence: written by `ringfence setup`. docs/configuration.md and examples/full.toml have every key with
# its default. After a change: ringfence reload

[[asterisk]]

[asterisk.ami]
"""
_ALLOW = """\

# Networks that are never banned. Add your office, your trunk providers, and a SIP proxy or SBC in front of
# this PBX.
[allow]
"""


def settings_text(
    secret: Path,
    networks: Mapping[Network, str],
    ami: Sequence[tuple[str, str | int]],
    logs: Sequence[Path] | None,
) -> str:
    """Return the text of the configuration.

    ``secret`` is the file with the password. ``networks`` are allowed, each with a reason that becomes a
    comment. ``ami`` has the keys of ``[asterisk.ami]`` that differ from the defaults. ``logs`` are the logs
    to read; [] for none, and None if the daemon finds the log without a setting.
    """
    keys = [*ami, ("secret_file", str(secret))]
    parts = [_HEAD, *(f"{key} = {json.dumps(value)}\n" for key, value in keys)]
    if logs is not None:
        parts += ["\n[asterisk.logs]\n", f"paths = {json.dumps([str(path) for path in logs])}\n"]
    parts.append(_ALLOW)
    if networks:
        rows = [f"    {json.dumps(str(network))},  # {why}\n" for network, why in sorted_networks(networks)]
        parts += ["networks = [\n", *rows, "]\n"]
    else:
        parts.append("networks = []\n")
    return "".join(parts)


def sorted_networks(networks: Mapping[Network, str]) -> list[tuple[Network, str]]:
    """Return networks in a fixed order, so that a second run writes the same text."""
    return sorted(
        networks.items(), key=lambda one: (one[0].version, int(one[0].network_address), one[0].prefixlen)
    )


def is_untouched(text: str) -> bool:
    """Whether the administrator has not changed the configuration that the package installs.

    Such a configuration has at most one Asterisk, of which only ``secret_file`` in ``[asterisk.ami]`` is set,
    and only empty lists in ``[allow]``. Return False if the text is not valid TOML.
    """
    try:
        tables: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    pbx = tables.pop("asterisk", [{}])
    allow = tables.pop("allow", {})
    if tables or len(pbx) != 1 or any(allow.values()):
        return False
    ami = pbx[0].pop("ami", {})
    return not pbx[0] and not ami.keys() - {"secret_file"}
