"""The configuration: a TOML file → typed settings, or every problem at once, each with its key path.

Every key has a default but the AMI secret. Unknown keys, wrong types and impossible values are all found in
one reading, since an administrator mends a file once, not a line at a time. So what a value may be is checked
while it is read (the hooks of ``values``) and not in constructors, which would stop at the first fault.

Secrets come from the file itself, from a file of their own (``secret_file``), or, where neither is named,
from the systemd credential ``NAME.secret``, NAME being the Asterisk's. They are read here, once, and travel
as :class:`ringfence.model.Secret`.
"""

import os
import re
import ssl
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from operator import eq
from pathlib import Path
from typing import Any

from attrs import AttrsInstance, evolve, fields, frozen, has
from cattrs import AttributeValidationNote, ClassValidationError, Converter, IterableValidationError
from cattrs.errors import ForbiddenExtraKeysError

from ringfence.errors import ConfigError
from ringfence.model import Network, Secret
from ringfence.settings import (
    AllowSettings,
    AmiSettings,
    AsteriskSettings,
    ClaimedSettings,
    ControlSettings,
    CustomSettings,
    DenySettings,
    FirewallSettings,
    GeoSettings,
    LimitSettings,
    LogSettings,
    RuleSettings,
    Settings,
    StoreSettings,
    WireSettings,
    default_rules,
)
from ringfence.values import HOOKS, HostName, Interface, Paths, Place, SipPort, Text, list_only, text_from

__all__ = [
    "MAX_SECRET_BYTES",
    "AllowSettings",
    "AmiSettings",
    "AsteriskSettings",
    "ClaimedSettings",
    "ControlSettings",
    "CustomSettings",
    "DenySettings",
    "FirewallSettings",
    "GeoSettings",
    "LimitSettings",
    "LogSettings",
    "RuleSettings",
    "Settings",
    "StoreSettings",
    "WireSettings",
    "load",
    "load_what_is_right",
    "parse",
]

MAX_SECRET_BYTES = 1024


def load(path: Path, environ: Mapping[str, str] = os.environ, *, secrets: bool = True) -> Settings:
    """Read ``path`` and the secrets it names; raise ConfigError with every problem found.

    Without ``secrets`` none is read or missed: a command that talks to nobody's AMI needs none, and whoever
    runs it may not be allowed to read them.
    """
    return parse(_tree(path), str(path), environ, secrets=secrets)


def load_what_is_right(path: Path) -> Settings:
    """Read ``path`` without its secrets, with the defaults in place of every table that has a fault.

    For a command that must work all the same: to lift a ban takes the control socket, and nothing of a
    mistyped rule.
    """
    try:
        return Settings(**_right(_tree(path), Settings))
    except ConfigError:
        return Settings()


def _tree(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise ConfigError(str(path), ["there is no such file; copy examples/minimal.toml there"]) from None
    except PermissionError as error:
        mend = "be root, or in the group ringfence"
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}; {mend}"]) from None
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from None
    except (ValueError, RecursionError) as error:  # also a number of 5 000 digits, and tables without end
        raise ConfigError(str(path), [f"is not TOML: {_in_words(str(error))}"]) from None


_TWICE = re.compile(r"Cannot declare \((.{1,200}),?\) twice(.{0,80})")


def _in_words(error: str) -> str:
    """Say a fault of TOML's as the file has it: of a table that is there twice Python names a tuple."""
    twice = _TWICE.fullmatch(error)
    if twice is None:
        return error
    name = ".".join(part.strip(" '") for part in twice[1].rstrip(",").split(","))
    return f"there are two tables [{name}]; write both in one{twice[2]}"


def parse(
    tree: Mapping[str, object], where: str, environ: Mapping[str, str] = os.environ, *, secrets: bool = True
) -> Settings:
    """Make settings of a TOML document; ``where`` names it in the ConfigError."""
    problems: list[str] = []
    settings = Settings()
    try:
        settings = _CONVERTER.structure(tree, Settings)
    except Exception as error:  # noqa: BLE001 - cattrs gathers what the hooks raise into groups of its own
        problems += _problems(error)
    entries = _entries(tree)
    problems += _clashes(entries, none=tree.get("asterisk") == [])
    problems += _shared_logs(settings.asterisk)
    problems += _unheard(settings)
    problems += _without_a_map(settings)
    found, missing = _secrets(entries, environ) if secrets else ([], [])
    problems += missing
    if problems:
        raise ConfigError(where, problems)
    return _with_secrets(settings, found) if secrets else settings


def _rules(converter: Converter) -> Callable[[object, object], Mapping[str, RuleSettings]]:
    """Make the hook for ``[rules]``: what a rule's table leaves out keeps its default."""
    defaults = {name: _written(mine) for name, mine in default_rules().items()}

    def hook(value: object, _: object) -> Mapping[str, RuleSettings]:
        if not isinstance(value, Mapping):
            raise TypeError
        found = default_rules()
        faults: list[Exception] = []
        for name, table in value.items():
            try:
                if name not in defaults:
                    raise ValueError("no such rule; there are: " + ", ".join(defaults))
                if not isinstance(table, Mapping):
                    raise TypeError
                if extra := table.keys() - defaults[name].keys():
                    raise ForbiddenExtraKeysError("", RuleSettings, {str(key) for key in extra})
                found[name] = converter.structure({**defaults[name], **table}, RuleSettings)
            except Exception as fault:  # noqa: BLE001 - gathered, as cattrs gathers them
                fault.add_note(AttributeValidationNote("", name, RuleSettings))
                faults.append(fault)
        if faults:
            raise ClassValidationError("rules", faults, RuleSettings)
        return found

    return hook


def _written(mine: RuleSettings) -> dict[str, object]:
    """Give the settings of a rule as a file has them: those that it has."""
    times = {"window": f"{mine.window:.0f}s", "ban": [f"{step:.0f}s" for step in mine.ban]}
    given = {field.name: getattr(mine, field.name) for field in fields(RuleSettings)}
    return {name: value for name, value in (given | times).items() if value is not None} | (
        {"accounts": list(mine.accounts)} if mine.accounts is not None else {}
    )


def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    hooks = {**HOOKS, Mapping[str, RuleSettings]: _rules(converter)}
    for kind, hook in hooks.items():
        if isinstance(kind, type):  # for bool and Path cattrs has its own, which go before predicates
            converter.register_structure_hook(kind, hook)
        else:
            converter.register_structure_hook_func(partial(eq, kind), hook)
    for kind in (
        tuple[AsteriskSettings, ...],
        tuple[CustomSettings, ...],
        tuple[Network, ...],
        tuple[HostName, ...],
        tuple[Place, ...],
        tuple[Interface, ...],
        tuple[Path, ...],
        tuple[SipPort, ...],
        tuple[Text, ...],
    ):
        listed = list_only(converter.get_structure_hook(kind))
        converter.register_structure_hook_func(partial(eq, kind), listed)
    for kind in (tuple[Path, ...], tuple[SipPort, ...], tuple[Text, ...]):  # those may be left out
        converter.register_structure_hook_func(partial(eq, kind | None), _given(converter, kind))
    converter.register_structure_hook_func(partial(eq, Paths | None), HOOKS[Paths])
    return converter


def _given(converter: Converter, kind: Any) -> Callable[[object, object], object]:  # noqa: ANN401 - a type
    hook = converter.get_structure_hook(kind)
    return lambda value, _: hook(value, kind)


_CONVERTER = _converter()


def _problems(error: Exception, path: str = "") -> list[str]:
    """Flatten what cattrs gathered into lines that begin with a key path."""
    if isinstance(error, ClassValidationError):
        named, bare = error.group_exceptions()
        deeper = [(fault, f"{path}.{note.name}".lstrip(".")) for fault, note in named]
        deeper += [(fault, path) for fault in bare]
        return [line for fault, where in deeper for line in _problems(fault, where)]
    if isinstance(error, IterableValidationError):
        placed, _ = error.group_exceptions()
        return [line for fault, note in placed for line in _problems(fault, f"{path}[{note.index}]")]
    if isinstance(error, ForbiddenExtraKeysError):
        known = [attribute.name for attribute in fields(error.cl)] if has(error.cl) else []
        return [
            f"{f'{path}.{key}'.lstrip('.')}: unknown key{_perhaps(key, known)}"
            for key in sorted(error.extra_fields)
        ]
    if isinstance(error, KeyError):
        return [f"{path}: is missing"]
    return [f"{path}: {error if isinstance(error, ValueError) else 'must be a table'}"]


def _perhaps(key: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - loaded where something is wrong

    near = get_close_matches(key, known, n=1) if key not in known else []  # known, and not of this rule
    return f"; is {near[0]} meant?" if near else ""


@frozen
class _Entry:
    """An ``[[asterisk]]`` as far as it is right; the rest has its defaults, and was complained of elsewhere.

    ``name`` is None where the name is wrong. ``judged`` is false where too much is to say whether a secret
    is missing.
    """

    key: str
    name: str | None
    ami: AmiSettings
    judged: bool


def _entries(tree: Mapping[str, object]) -> list[_Entry]:
    """Read the ``[[asterisk]]`` tables for what no key can check alone, also in a file that is wrong."""
    tables = tree.get("asterisk", [{}])
    entries = []
    for index, table in enumerate(tables if isinstance(tables, list) else []):
        ami = table.get("ami", {}) if isinstance(table, Mapping) else None
        if not isinstance(ami, Mapping):
            continue
        name = _right(table, AsteriskSettings).get(
            "name", None if "name" in table else AsteriskSettings().name
        )
        right = _right(ami, AmiSettings)
        secret = {"secret", "secret_file"} & ami.keys()
        judged = secret <= right.keys() and (bool(secret) or name is not None)
        entries.append(_Entry(f"asterisk[{index}]", name, AmiSettings(**right), judged))
    return entries


def _right(table: Mapping[str, object], kind: type[AttrsInstance]) -> dict[str, Any]:
    """Give those values of a table that are right, each by itself."""
    found = {}
    for attribute in fields(kind):
        if attribute.name in table:
            with suppress(Exception):
                found[attribute.name] = _CONVERTER.structure(table[attribute.name], attribute.type)
    return found


def _clashes(entries: Sequence[_Entry], *, none: bool) -> list[str]:
    """Check what no key can check alone."""
    problems = ["asterisk: must have at least one entry"] if none else []
    names: set[str] = set()
    for entry in entries:
        if entry.name in names:
            problems.append(
                f'{entry.key}.name: "{entry.name}" is taken; give each [[asterisk]] a name of its own'
            )
        names |= {entry.name} if entry.name is not None else set()
        if entry.ami.tls_ca is not None and entry.ami.tls:
            try:
                ssl.create_default_context(cafile=entry.ami.tls_ca)
            except OSError as error:  # SSLError is one
                problems.append(f"{entry.key}.ami.tls_ca: cannot be used: {error}")
    return problems


def _shared_logs(asterisks: Sequence[AsteriskSettings]) -> list[str]:
    """Check that no log is read twice: what it tells would count twice."""
    problems: list[str] = []
    readers: dict[Path | None, str] = {}  # None: the journal
    for index, pbx in enumerate(asterisks):
        for log in (*(pbx.logs.paths or ()), *([None] if pbx.logs.journal else [])):
            key = f"asterisk[{index}].logs.{'journal' if log is None else 'paths'}"
            if log in readers:
                what = "the journal" if log is None else log
                problems.append(f"{key}: {what} is read by {readers[log]} already; each once")
            readers.setdefault(log, key)
    return problems


def _secrets(entries: Sequence[_Entry], environ: Mapping[str, str]) -> tuple[list[Secret | None], list[str]]:
    """Read every secret that is needed, wherever it lives; give them, and what is wrong with them."""
    found: list[Secret | None] = []
    problems: list[str] = []
    for entry in entries:
        if not entry.ami.enabled:
            found.append(None)
        elif entry.judged:
            try:
                found.append(_secret(entry, environ))
            except ValueError as error:
                problems.append(f"{entry.key}.ami.{error}")
    return found, problems


def _with_secrets(settings: Settings, found: Sequence[Secret | None]) -> Settings:
    known = [
        evolve(pbx, ami=evolve(pbx.ami, secret=secret))
        for pbx, secret in zip(settings.asterisk, found, strict=True)
    ]
    return evolve(settings, asterisk=tuple(known))


def _unheard(settings: Settings) -> list[str]:
    """Check that something tells of each PBX."""
    return [
        f"asterisk[{index}]: nothing tells of it; enable its ami, or name its logs"
        for index, pbx in enumerate(settings.heard())
        if not pbx.ami.enabled and not pbx.logs.wanted
    ]


def _without_a_map(settings: Settings) -> list[str]:
    """Check that somebody knows where the countries are."""
    return [
        f"{side}.countries: only a database knows their networks; name it in [geo] database"
        for side, countries in (("allow", settings.allow.countries), ("deny", settings.deny.countries))
        if countries and not settings.geo.database
    ]


def _secret(entry: _Entry, environ: Mapping[str, str]) -> Secret:
    ami = entry.ami
    if ami.secret is not None and ami.secret_file is not None:
        raise ValueError("secret: is given twice, here and by secret_file; keep one")
    if ami.secret is not None:
        return ami.secret
    if ami.secret_file is not None:
        return _read_secret(ami.secret_file, "secret_file")
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    path = Path(credentials) / f"{entry.name}.secret" if credentials else None
    if path is None or not _is_there(path):
        raise ValueError(
            "secret: is missing; name a file that holds it with secret_file, "
            f'or give the unit a credential "{entry.name}.secret"'
        )
    return _read_secret(path, "secret")


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # the credentials of somebody else
        return False


def _read_secret(path: Path, key: str) -> Secret:
    line_end = len("\r\n")
    try:
        with path.open("rb") as file:
            whole = file.read(MAX_SECRET_BYTES + line_end + 1)
        clear = whole.strip(b"\r\n").decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"{key}: {path} cannot be read: {reason}") from None
    if len(whole) > MAX_SECRET_BYTES + line_end or len(clear.encode()) > MAX_SECRET_BYTES:
        raise ValueError(f"{key}: {path} holds more than {MAX_SECRET_BYTES} bytes")
    try:
        return Secret(text_from(clear))
    except ValueError as error:
        raise ValueError(f"{key}: {path}: {error}") from None
