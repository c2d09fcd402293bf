"""The text of ringfence.toml, read by the loader."""

from ipaddress import ip_network
from pathlib import Path

import pytest
from tests.docs.pages import text_of

from ringfence.config import loader
from ringfence.config.schema import Settings
from ringfence.features.setup.texts import is_untouched, settings_text, sorted_networks

NETWORKS = {ip_network(text): "a test" for text in ("198.51.100.9", "192.0.2.0/24", "2001:db8::/64")}


def load(folder: Path, text: str) -> Settings:
    """Load a configuration without its secrets."""
    (folder / "ringfence.toml").write_text(text, "utf-8")
    return loader.load(folder / "ringfence.toml", secrets=False)


def test_the_loader_accepts_what_is_written(tmp_path: Path) -> None:
    """Networks, the address of AMI and the log have their values."""
    text = settings_text(
        Path("/etc/ringfence/asterisk.secret"),
        NETWORKS,
        [("host", "172.17.0.2"), ("port", 5039)],
        [Path("/x/y")],
    )
    settings = load(tmp_path, text)

    assert {*settings.allow.networks} == {*NETWORKS}
    [pbx] = settings.asterisk
    assert (pbx.ami.host, pbx.ami.port, pbx.logs.paths) == ("172.17.0.2", 5039, (Path("/x/y"),))


def test_a_path_may_have_any_visible_character(tmp_path: Path) -> None:
    """The loader reads a path with a character beyond the first 65 536 as it was written."""
    path = Path("/x/\N{TELEPHONE RECEIVER}")
    [pbx] = load(tmp_path, settings_text(Path("/s"), {}, [], [path])).asterisk

    assert pbx.logs.paths == (path,)


def test_without_a_difference_the_configuration_is_the_default(tmp_path: Path) -> None:
    """A plain PBX needs the file of the secret alone."""
    [pbx] = load(tmp_path, settings_text(Path("/s"), {}, [], None)).asterisk

    assert (pbx.ami.host, pbx.ami.secret_file, pbx.logs.paths) == ("127.0.0.1", Path("/s"), None)


def test_the_order_is_fixed() -> None:
    """A second run writes the same text."""
    assert [str(network) for network, _ in sorted_networks(NETWORKS)] == [
        "192.0.2.0/24",
        "198.51.100.9/32",
        "2001:db8::/64",
    ]


@pytest.mark.parametrize(
    ("text", "untouched"),
    [
        (text_of("examples/minimal.toml"), True),
        ("", True),
        ('[allow]\nnetworks = ["192.0.2.1"]\n', False),
        ("[rules.guess]\nattempts = 9\n", False),
        ("[[asterisk]]\n[[asterisk]]\n", False),
        ('[[asterisk]]\n[asterisk.ami]\nhost = "192.0.2.1"\n', False),
        ("[[asterisk]]\n[asterisk.logs]\njournal = true\n", False),
        ("[", False),
    ],
)
def test_a_configuration_of_the_administrator_is_recognised(text: str, untouched: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Only the file as the package installs it, or an empty one, may be replaced."""
    assert is_untouched(text) is untouched
