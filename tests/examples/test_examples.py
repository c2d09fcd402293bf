"""The example configurations are valid, complete, and show the defaults."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from ringfence import street
from ringfence.config.loader import load
from ringfence.config.schema import (
    AllowSettings,
    AmiSettings,
    AsteriskSettings,
    ClaimedSettings,
    ControlSettings,
    CustomSettings,
    DenySettings,
    DisplaySettings,
    FirewallSettings,
    LogSettings,
    RuleSettings,
    Settings,
    StoreSettings,
    WireSettings,
    default_rules,
)
from ringfence.detect.rules import RULES
from ringfence.features.feeds.settings import FeedSettings
from ringfence.features.notify.settings import AppriseSettings, HookSettings, MailSettings

FOLDER = Path(__file__).parents[2] / "examples"
TABLES = {
    "asterisk": AsteriskSettings,
    "asterisk.ami": AmiSettings,
    "asterisk.logs": LogSettings,
    "asterisk.logs.custom": CustomSettings,
    "asterisk.wire": WireSettings,
    **{f"asterisk.{table}": module.TABLE for table, module in street.settings("asterisk").items()},
    "firewall": FirewallSettings,
    **{f"firewall.{table}": module.TABLE for table, module in street.settings("firewall").items()},
    "allow": AllowSettings,
    "deny": DenySettings,
    **{f"rules.{rule.name}": RuleSettings for rule in RULES},
    "claimed": ClaimedSettings,
    "notify.mail": MailSettings,
    "notify.apprise": AppriseSettings,
    "notify.hook": HookSettings,
    "store": StoreSettings,
    "control": ControlSettings,
    **{table: module.TABLE for table, module in street.settings().items()},
    "feeds": FeedSettings,
    "display": DisplaySettings,
}
_HEAD = re.compile(r"#?\[{1,2}([a-z_.]+)\]{1,2}")
_KEY = re.compile(r"#?([a-z_]+) = \S")


def lacks(table: str, key: str) -> bool:
    """Whether a rule has no such key."""
    _, _, rule = table.partition("rules.")
    return bool(rule) and getattr(default_rules()[rule], key) is None


def named_keys(text: str) -> Iterator[tuple[str, str]]:
    """Return each key with its table; keys without a default are commented out."""
    table = ""
    for line in text.splitlines():
        if head := _HEAD.fullmatch(line):
            table = head[1]
        elif key := _KEY.match(line):
            yield table, key[1]


@pytest.mark.parametrize("name", ["minimal", "full"])
def test_the_example_loads(name: str) -> None:
    """An example is a valid configuration, apart from the secret, which is on the machine."""
    load(FOLDER / f"{name}.toml", {}, secrets=False)


def test_the_full_example_names_every_key_once() -> None:
    """The full example has each key of the settings exactly once."""
    keys = [
        (table, field.name)
        for table, kind in TABLES.items()
        for field in attrs.fields(kind)
        if f"{table}.{field.name}" not in TABLES and not lacks(table, field.name)
    ]

    named = list(named_keys((FOLDER / "full.toml").read_text("utf-8")))

    assert sorted(keys) == sorted(named)


def test_every_table_of_the_settings_is_known_here() -> None:
    """A new table of the settings must be added to this test, and so to the example."""
    assert {field.name for field in attrs.fields(Settings)} == {table.split(".")[0] for table in TABLES}


@pytest.mark.parametrize("name", ["minimal", "full"])
def test_the_example_shows_the_defaults(name: str) -> None:
    """Each value in an example is the default, except the place of the secret."""
    settings = load(FOLDER / f"{name}.toml", {}, secrets=False)
    ami = settings.asterisk[0].ami

    assert ami.secret_file == Path("/etc/ringfence/asterisk.secret")
    without = attrs.evolve(settings.asterisk[0], ami=attrs.evolve(ami, secret_file=None))
    assert Settings() == attrs.evolve(settings, asterisk=(without,))


def test_every_key_of_the_full_example_is_explained() -> None:
    """Each key has a comment above it; keys of rules are explained at the first rule."""
    lines = (FOLDER / "full.toml").read_text("utf-8").splitlines()
    bare = [
        line
        for before, line in itertools.pairwise(lines)
        if _KEY.match(line) and not line.startswith("#") and not before.startswith("#")
    ]
    shared = {"enabled", "attempts", "window", "ban", "friends", "scope"}

    assert [line for line in bare if line.partition(" = ")[0] not in shared] == []
    first = (FOLDER / "full.toml").read_text("utf-8").partition("[rules.guess]")[2].partition("[rules.")[0]
    assert shared <= {line.partition(" = ")[0] for line in first.splitlines()}
