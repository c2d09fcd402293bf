"""The tables that features bring: each is read, shown and documented like a table of the guard."""

from pathlib import Path
from typing import Any

import attrs
import pytest
from tests.docs.pages import rows_of, section_of, text_of

from ringfence import street
from ringfence.config.converters import toml_of
from ringfence.config.effective import Value, ValueOrigin, effective
from ringfence.config.environment import variable_of
from ringfence.config.schema import Settings
from ringfence.errors import ConfigError

VALUES: dict[str, dict[str, Any]] = {
    "asterisk.hep": {"enabled": True, "port": 9_061, "tls_ports": [5_071], "wss_ports": [8_443]},
    "firewall.limit": {"mode": "observe", "rate": 77, "burst": 777},
    "firewall.ration": {
        "mode": "off",
        "rate": 7,
        "asking": "observe",
        "asking_rate": 7,
    },
    "fence": {"mode": "observe", "networks": ["203.0.113.0/24"], "also": ["443/tcp"], "also_ssh": True},
    "bare_address": {"mode": "observe", "domains": ["pbx.example.org"]},
    "geo": {"database": ["/srv/geo.mmdb"]},
    "account": {"elsewhere": "block"},
    "crowdsec": {
        "url": "http://127.0.0.1:8080",
        "machine": "pbx-a",
        "password_file": "/run/password",
        "key_file": "/run/key",
        "interval": "20s",
        "allow_http": True,
    },
    "phones": {"gone_after": "30m"},
    "metrics": {"listen": "127.0.0.1:9721", "remote": True, "hosts": ["pbx.example.org"]},
    "publish": {"token_file": "/run/token", "max_entries": 77},
}
"""Valid values of each table; none is the default."""
NESTED = {"feeds", "notify"}
"""Tables that have tables in them, and tests of their own."""
TABLES = street.settings() | {
    f"{outer}.{name}": one
    for outer in ("asterisk", "firewall")
    for name, one in street.settings(outer).items()
}
LISTEN = {"RINGFENCE_METRICS__LISTEN": "127.0.0.1:9721"}


def shown(folder: Path, text: str, environ: dict[str, str], table: str) -> dict[str, Value]:
    """Return the values of a table that ``config show`` shows, by key."""
    file = folder / "ringfence.toml"
    file.write_text(text, "utf-8")
    found: dict[str, Value] = {}
    for value in effective(file, environ):
        *tables, key = (part for part in value.path if isinstance(part, str))
        if ".".join(tables) == table:
            found[key] = value
    return found


def test_every_feature_with_settings_has_its_row() -> None:
    """The street knows the table of each feature that brings one, and each of these has values here."""
    assert {*street.modules("settings")} == {*TABLES.values()}
    assert VALUES.keys() | NESTED == TABLES.keys()


@pytest.mark.parametrize("table", VALUES)
def test_a_table_is_read_from_the_file(tmp_path: Path, table: str) -> None:
    """Each value is in force, and is shown with its line; the other keys have their defaults."""
    head = ["[[asterisk]]"] if table.startswith("asterisk.") else []
    lines = [*head, f"[{table}]", *(f"{key} = {toml_of(value)}" for key, value in VALUES[table].items())]
    text = "\n".join(lines)
    found = shown(tmp_path, text, {} if table == "metrics" else LISTEN, table)

    assert {
        key: (value.value, value.line) for key, value in found.items() if value.origin is ValueOrigin.FILE
    } == {key: (value, line) for line, (key, value) in enumerate(VALUES[table].items(), len(head) + 2)}
    kind = TABLES[table].TABLE
    assert [*found] == [field.name for field in attrs.fields(kind)]
    outer = {"asterisk": Settings().asterisk[0], "firewall": Settings().firewall}
    assert outer.get(table.partition(".")[0], Settings()).of(kind) == kind()


@pytest.mark.parametrize("table", VALUES)
def test_a_table_is_read_from_the_environment(tmp_path: Path, table: str) -> None:
    """Each key has a variable, which a mistake names."""
    texts = {key: toml_of(value).strip('"') for key, value in VALUES[table].items()}
    names = {key: variable_of((*table.split("."), key)) for key in texts}
    environ = LISTEN | {names[key]: text for key, text in texts.items()}
    found = shown(tmp_path, "", environ, table)

    assert {key: value.value for key, value in found.items() if value.variable} == VALUES[table]
    for name in names.values():
        with pytest.raises(ConfigError) as caught:
            shown(tmp_path, "", {name: "["}, table)
        assert caught.value.problems[0].startswith(f"{name}: ")


@pytest.mark.parametrize("table", VALUES)
def test_a_table_is_documented(table: str) -> None:
    """The page of the configuration has a row for each key."""
    rows = rows_of(section_of(text_of("docs/configuration.md"), f"## [{table}]"))

    assert [row[0] for row in rows] == [f"`{field.name}`" for field in attrs.fields(TABLES[table].TABLE)]
