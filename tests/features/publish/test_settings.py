"""``[publish]``: the token of the list for routers, and what it needs."""

from pathlib import Path
from typing import Any

import pytest

from ringfence.config.loader import parse
from ringfence.config.schema import Settings
from ringfence.errors import ConfigError
from ringfence.features.publish.settings import PublishSettings
from ringfence.values.secret import Secret

TOKEN = "0123456789abcdef"
NEEDED = 'must have 16 to 128 letters, digits and characters of "-._~"; make one with: openssl rand -hex 16'
AMI = [{"ami": {"secret": "x"}}]
LISTEN = {"listen": "127.0.0.1:9721"}


def read(publish: dict[str, Any], metrics: dict[str, Any] = LISTEN, **environ: str) -> Settings:
    """Return the settings of a configuration with these tables."""
    return parse({"asterisk": AMI, "metrics": metrics, "publish": publish}, "here", environ)


def problems(publish: dict[str, Any], metrics: dict[str, Any] = LISTEN) -> list[str]:
    """Return the problems of a configuration with these tables."""
    with pytest.raises(ConfigError) as error:
        read(publish, metrics)
    return list(error.value.problems)


def test_the_list_is_off_by_default() -> None:
    """Without a token nothing is published, whatever else is set."""
    found = read({"max_entries": 50_000}).of(PublishSettings)

    assert not found.wanted
    assert found.max_entries == 50_000
    assert read({}).of(PublishSettings).max_entries == 4_000


def test_the_token_is_masked(tmp_path: Path) -> None:
    """A token from the file, from its own file or from the environment is a secret."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n", "utf-8")
    tokens = [
        read({"token": TOKEN}),
        read({"token_file": str(file)}),
        read({"token_file": str(file)}, RINGFENCE_PUBLISH__TOKEN=TOKEN),
    ]

    assert [settings.of(PublishSettings).token for settings in tokens] == [Secret(TOKEN)] * 3
    assert TOKEN not in repr(tokens)
    without = {"asterisk": AMI, "metrics": LISTEN, "publish": {"token_file": str(file)}}
    assert parse(without, "here", {}, secrets=False).of(PublishSettings).token is None


@pytest.mark.parametrize(
    "token", ["short", "a" * 15, "a" * 129, "0123456789abcde f", "0123456789abcde/", "ä" * 16]
)
def test_a_token_that_can_be_guessed_or_breaks_a_url_is_refused(tmp_path: Path, token: str) -> None:
    """A token is too long to be guessed, and has only characters that a URL may contain."""
    file = tmp_path / "token"
    file.write_text(token, "utf-8")

    assert problems({"token": token}) == [f"publish.token: {NEEDED}"]
    assert problems({"token_file": str(file)}) == [f"publish.token_file: {file} {NEEDED}"]


def test_every_mistake_is_reported(tmp_path: Path) -> None:
    """A second token, a missing file, a missing address and an impossible number are each a problem."""
    missing = tmp_path / "none"
    assert problems({"token": TOKEN, "token_file": "/x"}) == [
        "publish.token: is given twice, here and by token_file; keep one"
    ]
    assert problems({"token_file": str(missing)}) == [
        f"publish.token_file: {missing} cannot be read: No such file or directory"
    ]
    assert problems({"token": TOKEN}, {}) == [
        "publish: the list is served with the metrics; fix: set listen in [metrics], or remove the token"
    ]
    assert problems({"token": TOKEN}, {"listen": "here"}) == [
        'metrics.listen: must be an address and a port such as "127.0.0.1:9721" or "[::1]:9721"'
    ]
    for number in (0, 50_001):
        assert problems({"max_entries": number}) == [
            "publish.max_entries: must be a whole number from 1 to 50000"
        ]
