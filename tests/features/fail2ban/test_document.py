"""The printed configuration: valid TOML for ringfence, with any text in fail2ban's files."""

import tomllib
from ipaddress import ip_network
from pathlib import Path
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from ringfence.config.loader import parse
from ringfence.config.schema import Settings
from ringfence.features.fail2ban.carried import (
    GUESS,
    LOGS,
    WIDTH,
    ConvertedSettings,
    Notes,
    Numbers,
    convert,
    document_of,
)
from ringfence.features.fail2ban.jails import Jail

OPTIONS = (
    "ignorecommand", "ignoreself", "logtimezone", "backend", "maxretry", "findtime", "bantime",
    "bantime.increment", "bantime.rndtime",
)  # fmt: skip
HOSTILE = st.text(max_size=60) | st.sampled_from(
    [
        '"""',
        "\\",
        '"]\n[evil]\nx = "',
        "'''",
        "\r\n# ",
        "\x7f",
        "\u2028",
        "\udcff",
        "=",
        "[[asterisk]]",
        '/log/"a"\\',
    ]
)
VALUES = (
    HOSTILE
    | st.from_regex(r"-?[0-9]{1,12} ?[a-z]{0,6}", fullmatch=True)
    | HOSTILE.map(lambda text: f"/{text}")
)


def read(text: str) -> Settings:
    """Parse the printed text as the daemon would."""
    return parse(tomllib.loads(text), "printed", {}, secrets=False)


def test_all_values_are_printed() -> None:
    """Each value is in its table with notes above it, and no line is too wide."""
    notes = Notes()
    notes.add(LOGS, "first " * 30)
    notes.add(GUESS, "second")
    networks = tuple(ip_network((0xC0000200 + number, 32)) for number in range(9))
    found = ConvertedSettings(
        jails=("asterisk", "pbx"),
        networks=networks,
        paths=('/log/"a"\\b', "/log/ü"),
        timezone="UTC",
        guess=Numbers(7, 5_400.0, (90.0, 604_800.0)),
        manager=Numbers(3),
        notes=notes,
    )

    text = document_of(found)
    settings = read(text)

    assert settings.asterisk[0].ami.secret_file == Path("/etc/ringfence/asterisk.secret")
    assert settings.asterisk[0].logs.paths == (Path('/log/"a"\\b'), Path("/log/ü"))
    assert settings.asterisk[0].logs.timezone == ZoneInfo("UTC")
    assert settings.allow.networks == networks
    guess = settings.rules["guess"]
    assert (guess.attempts, guess.window, guess.ban) == (7, 5_400.0, (90.0, 604_800.0))
    assert settings.rules["manager"].attempts == 3
    assert 'window = "90m"\nban = ["90s", "7d"]\n' in text
    assert "# NOTE second.\nattempts = 7\n" in text
    assert "jail asterisk, jail pbx" in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_the_journal_is_printed() -> None:
    """A journal read by fail2ban is configured, with a note on the permission."""
    text = document_of(ConvertedSettings(jails=("asterisk",), journal=True))

    assert read(text).asterisk[0].logs.journal
    assert '# NOTE the user ringfence must be able to read the journal: see "The journal"' in text


def test_unset_values_are_not_printed() -> None:
    """Without values the result is ringfence's default configuration."""
    nothing = ConvertedSettings(jails=("asterisk",))

    assert read(document_of(nothing)).rules == Settings().rules
    assert "[rules.guess]" not in document_of(nothing)


@given(st.dictionaries(st.sampled_from(OPTIONS), VALUES), HOSTILE, st.lists(HOSTILE, max_size=3))
def test_hostile_values_stay_values(options: dict[str, str], name: str, texts: list[str]) -> None:
    """Any text in fail2ban's files or file names results in a valid configuration."""
    several = tuple(texts)
    paths = tuple(f"/{text}" for text in texts)
    jail = Jail(name, options, ignored=several, paths=paths, patterns=several, actions=several, port=name)

    settings = read(document_of(convert([jail])))

    assert len(settings.asterisk) == 1
    assert {str(path)[0] for path in settings.asterisk[0].logs.paths or ()} <= {"/"}
