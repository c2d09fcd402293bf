"""The street: a copy of ringfence without a feature does the rest, and the guard runs without any."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile

import pytest
from tests.support.amiserver import Script
from tests.support.captures import capture
from tests.support.copies import copy_without
from tests.support.daemon import GRANTED, Guard, ami_server, until
from tests.support.users import VALID
from tests.support.warm import start, warmed

from ringfence import street
from ringfence.errors import ControlError

GUESSES = capture("asterisk-22", "wrong-password-register").ami.read_bytes()
GUESSER = "198.18.1.101"
REMOVED = [[name] for name in street.STREET] + [[*street.STREET]]


def test_a_folder_of_bytecode_is_no_feature(tmp_path: Path) -> None:
    """A folder in which an upgrade has left nothing but bytecode counts as missing."""
    copy = copy_without(["trial"], tmp_path)
    (copy / "ringfence" / "features" / "trial" / "__pycache__").mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", "from ringfence import street; print(*street.present())"],
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [name for name in street.STREET if name != "trial"]


def test_modules_are_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The import path is searched at the first `why`, and not again."""
    found = [*street.modules("why")]
    monkeypatch.setattr(street, "find_spec", None)
    assert [*street.modules("why")] == found


@pytest.mark.parametrize("features", REMOVED, ids="+".join)
def test_a_copy_without_a_feature_guards(features: Sequence[str], tmp_path: Path) -> None:
    """Every other module imports. The guard bans a guesser and shows it, and no row is lost.

    The feature's requests and commands are unknown. The check of a configuration names each of its tables,
    and each variable, with the feature that it needs.
    """
    rules = {"guess": {"attempts": 3}}
    with Guard(tmp_path) as whole:
        whole.must("ban", "192.0.2.9", "--for", "1h")
    copy = copy_without(features, tmp_path)
    copied = {"PYTHONPATH": str(copy)}
    with (
        warmed(copy),
        ami_server(Script(play=[GRANTED, GUESSES])) as pbx,
        Guard(tmp_path, ami={"port": pbx.port}, rules=rules, environ=copied) as guard,
    ):
        until(lambda: guard.banned() == {GUESSER, "192.0.2.9"}, "the ban")
        assert GUESSER in guard.must("bans")
        assert GUESSER in guard.must("events")
        assert "2 of 2 would be in force" in guard.must("status")
        assert "is banned" in guard.must("why", GUESSER)
        for do in requests_of(features):
            with pytest.raises(ControlError, match="does not know this request"):
                guard.ask(do)
        for command in commands_of(features):
            assert "No such command" in guard.command(command).stderr
        if "audit" in features:
            assert "No such option: --hardening" in guard.command("check", "--hardening").stderr
        assert [one["code"] for one in guard.status()["alarms"]] == ["firewall.dry_run"]
        assert_tables_are_refused(features, tmp_path / "tables.toml", copied)
    with Guard(tmp_path) as whole:
        assert whole.banned() == {GUESSER, "192.0.2.9"}
        assert json.loads(whole.must("history", "--json"))["totals"]["bans"]["admin"] == 1


def assert_tables_are_refused(features: Sequence[str], file: Path, copied: Mapping[str, str]) -> None:
    """Check a configuration with every table of the missing features, by file and by variable."""
    tables = sorted(table for table, name in street.SETTINGS.items() if name in features)
    variables = {f"RINGFENCE_{table.upper().replace('.', '__')}__KEY": table for table in tables}
    places = [table.replace("asterisk.", "asterisk[0].") for table in tables]
    heads = {"asterisk.hep": "[[asterisk]]\n"}
    file.write_text("".join(f"{heads.get(table, '')}[{table}]\n" for table in tables), "utf-8")
    check = [sys.executable, "-m", "ringfence", "config", "check", "--without-secrets", str(file)]
    with TemporaryFile() as errors:
        code = start(check, environ={**os.environ, **variables, **copied}, stderr=errors).wait(60)
        errors.seek(0)
        shown = errors.read().decode().splitlines()
    fix = "is not installed; fix: install all of ringfence, or remove"
    lines = [
        f"  {where}: {street.SETTINGS[table]} {fix} [{table}]"
        for where, table in [*variables.items(), *zip(places, tables, strict=True)]
    ]
    assert (code, shown) == ((2, [f"{file}:", *lines]) if tables else (0, []))


@pytest.mark.usefixtures("cold")
def test_countries_without_their_feature_are_one_clear_error(tmp_path: Path) -> None:
    """Each key that names countries is refused, and so is a command that does."""
    file = tmp_path / "ringfence.toml"
    tables = "allow", "deny", "fence"
    file.write_text("".join(f"[{table}]\ncountries = ['DE', 'FR']\n" for table in tables), "utf-8")
    environ = {"PYTHONPATH": str(copy_without(["geo"], tmp_path))}
    done = subprocess.run(
        [sys.executable, "-m", "ringfence", "config", "check", "--without-secrets", str(file)],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    why = "geo is not installed; fix: install all of ringfence"
    lines = [f"  {table}.countries: {why}, or remove it" for table in tables]
    assert (done.returncode, done.stderr.splitlines()) == (2, [f"{file}:", *lines])
    with Guard(tmp_path, environ=environ) as guard:
        assert f"country DE: {why}" in guard.command("allow", "country", "DE").stderr


def test_each_request_has_its_handler(tmp_path: Path) -> None:
    """A running daemon answers every request of every feature."""
    with Guard(tmp_path, fence={"mode": "enforce"}, notify={"hook": [{"command": ["/bin/true"]}]}) as guard:
        for do in requests_of([*street.STREET]):
            if do != "fence_redeem":  # there is no link to use
                assert guard.ask(do, **VALID.get(do, {})) is not None


def requests_of(features: Sequence[str]) -> list[str]:
    """Return the requests of these features."""
    modules = [one for one in street.modules("guard") if one.__name__.split(".")[2] in features]
    return [do for module in modules for do in getattr(module, "REQUESTS", {})]


def commands_of(features: Sequence[str]) -> list[str]:
    """Return the commands of these features."""
    return [name for name, command in street.commands().items() if command.module.split(".")[2] in features]
