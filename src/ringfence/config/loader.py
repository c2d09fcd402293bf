"""Loads the configuration: a TOML file becomes typed settings, or a list of all problems with key paths.

Every key has a default, except the AMI secret and some keys of tables that are optional themselves (such as
the recipients of mail). Unknown keys, wrong types and impossible values are all reported at once, so
that an administrator can fix all of them together. Therefore values are checked while they are read, by the
hooks of ``converters``, and not by the constructors of the settings, which would stop at the first problem.

Variables of the environment override keys of the file (:func:`overridden`).

Secrets come from the file itself, from a separate file (``secret_file``), or, if neither is set, from the
systemd credential ``NAME.secret``, with the Asterisk's NAME. They are read here, once, and passed on as
:class:`ringfence.values.secret.Secret`.
"""

import os
import re
import ssl
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from operator import eq
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from attrs import AttrsInstance, evolve, fields, frozen, has
from cattrs import AttributeValidationNote, ClassValidationError, Converter, IterableValidationError
from cattrs.errors import ForbiddenExtraKeysError

from ringfence import street
from ringfence.config.converters import HOOKS, Hook, Paths, is_visible, list_only, read_secret
from ringfence.config.environment import needing, overridden, remove_absent
from ringfence.config.schema import AmiSettings, AsteriskSettings, RuleSettings, Settings, default_rules
from ringfence.errors import ConfigError
from ringfence.values.secret import Secret


def load(path: Path, environ: Mapping[str, str] = os.environ, *, secrets: bool = True) -> Settings:
    """Load ``path`` and the secrets it names; raise ConfigError with all problems.

    With ``secrets`` false, no secret is read or required. This is for commands that do not connect to AMI:
    their user may not be allowed to read secrets.
    """
    return parse(_tree(path), str(path), environ, secrets=secrets)


def load_what_is_right(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Load ``path`` without its secrets, with defaults for every invalid value.

    If the file cannot be read or is not TOML, return the defaults of all settings. This is for commands that
    must work even if the file has mistakes. For example, to unban an address, the path of the control socket
    is needed, but valid rules are not.
    """
    try:
        return _partly(overridden(_tree(path), environ).tree, Settings)
    except ConfigError:
        return Settings()


def _tree(path: Path) -> dict[str, object]:
    try:
        text = path.read_bytes().decode()
        if text.startswith("\ufeff"):
            mark = "begins with a byte order mark, as Windows writes it; fix: save it as UTF-8 without BOM"
            raise ConfigError(str(path), [mark])
        if any(line.count(".") > DEEPEST and _depth(line) > DEEPEST for line in text.split("\n")):
            raise ConfigError(str(path), [f"is not TOML: a key has more than {DEEPEST} parts"])
        return tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(
            str(path), ["there is no such file; fix: copy examples/minimal.toml there"]
        ) from None
    except PermissionError as error:
        fix = "fix: be root, or in the group ringfence"
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}; {fix}"]) from None
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(str(path), [f"is not UTF-8 (at line {line}); fix: save it as UTF-8"]) from None
    except (ValueError, RecursionError) as error:  # also too many digits, or tables too deep
        raise ConfigError(str(path), [f"is not TOML: {_in_words(str(error))}"]) from None


DEEPEST = 100
"""The maximum number of dots in a key. tomllib needs minutes for a key of 120 kB, while the daemon waits."""
_PIECE = re.compile(r"\"[^\"]*\"|'[^']*'|[\w-]+|.")


def _depth(line: str) -> int:
    """Return the number of dots in the deepest dotted key in one line of TOML."""
    most = dots = 0
    for piece in _PIECE.findall(line):
        if piece == ".":
            dots += 1
            most = max(most, dots)
        elif piece == "#":
            break
        elif piece in "=,[]{}":
            dots = 0
    return most


_TWICE = re.compile(r"Cannot declare \((.{1,200}),?\) twice(.{0,80})")


def _in_words(error: str) -> str:
    """Return a TOML error in words for the administrator.

    Python's error about a table that appears twice shows the name as a tuple, so it is rewritten.
    """
    twice = _TWICE.fullmatch(error)
    if twice is None:
        return error
    name = ".".join(part.strip(" '") for part in twice[1].rstrip(",").split(","))
    return f"there are two tables [{name}]; write both in one{twice[2]}"


def parse(
    tree: Mapping[str, object], where: str, environ: Mapping[str, str] = os.environ, *, secrets: bool = True
) -> Settings:
    """Convert a TOML document and the variables of the environment into settings.

    Raise ConfigError with all problems. ``where`` is the name of the document in this error. With ``secrets``
    false, secrets and passwords are neither read nor required.
    """
    problems: list[str] = []
    if isinstance(single := tree.get("asterisk"), Mapping):
        problems.append("asterisk: must be written [[asterisk]], with two brackets; there may be several")
        tree = {**tree, "asterisk": [single]}  # so that the keys in this table are checked, too
    changed = overridden(tree, environ)
    problems += changed.problems
    problems += remove_absent(changed.tree)
    tree = changed.tree
    try:
        settings = _CONVERTER.structure(tree, Settings)
    except Exception as error:  # noqa: BLE001 - cattrs gathers what the hooks raise into groups of its own
        problems += _problems(error)
        settings = _partly(tree, Settings)
    entries = _entries(tree)
    problems += _clashes(entries, none=tree.get("asterisk") == [])
    problems += _shared_logs(settings.asterisk)
    problems += _without_source(settings)
    problems += needing(tree)
    found, missing = _secrets(entries, environ) if secrets else ([], [])
    settings, faults = _check_features(settings, tree, secrets=secrets)
    problems += [*faults, *missing]
    if problems:
        raise ConfigError(where, [changed.named(problem) for problem in problems])
    return _with_secrets(settings, found) if secrets else settings


def _check_features(
    settings: Settings, tree: Mapping[str, object], *, secrets: bool
) -> tuple[Settings, list[str]]:
    """Check the tables of the features; return ``settings`` with the secrets in them, and the problems.

    With ``secrets`` false, no file with a secret is read.
    """
    problems: list[str] = []
    for table, module in street.settings().items():
        mine = getattr(settings, table)
        problems += module.problems(mine, tree) if hasattr(module, "problems") else ()
        if secrets and hasattr(module, "with_secrets"):
            mine, faults = module.with_secrets(mine)
            problems += faults
            settings = evolve(settings, **{table: mine})
    return settings, problems


def _rules(converter: Converter) -> Hook:
    """Return the function that converts ``[rules]``. A key that a rule's table lacks keeps its default."""
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
                known = {key: value for key, value in table.items() if key in defaults[name]}
                if extra := table.keys() - known.keys():
                    fault = ForbiddenExtraKeysError("", RuleSettings, {str(key) for key in extra})
                    faults.append(_noted(fault, name))
                found[name] = converter.structure({**defaults[name], **known}, RuleSettings)
            except Exception as fault:  # noqa: BLE001 - gathered, as cattrs gathers them
                faults.append(_noted(fault, name))
        if faults:
            raise ClassValidationError("rules", faults, RuleSettings)
        return found

    return hook


def _noted(fault: Exception, name: str) -> Exception:
    """Return ``fault`` with the name of a rule as a note, from which :func:`_problems` makes the key path."""
    fault.add_note(AttributeValidationNote("", name, RuleSettings))
    return fault


def _written(mine: RuleSettings) -> dict[str, object]:
    """Return a rule's settings as a table of the TOML file, without settings that are None."""
    times = {"window": f"{mine.window:.0f}s", "ban": [f"{step:.0f}s" for step in mine.ban]}
    given = {field.name: getattr(mine, field.name) for field in fields(RuleSettings)}
    return {name: value for name, value in (given | times).items() if value is not None} | (
        {"accounts": list(mine.accounts)} if mine.accounts is not None else {}
    )


def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    hooks = {**HOOKS, Mapping[str, RuleSettings]: _rules(converter)}
    for kind, hook in hooks.items():
        # A hook for bool or Path must be registered for the class itself: otherwise cattrs uses its own hook.
        if isinstance(kind, type):
            converter.register_structure_hook(kind, hook)
        else:
            converter.register_structure_hook_func(partial(eq, kind), hook)
    for kind in dict.fromkeys(_lists_in(Settings)):
        listed = list_only(converter.get_structure_hook(kind))
        converter.register_structure_hook_func(partial(eq, kind), listed)
        # A list that may be None needs a hook of its own.
        converter.register_structure_hook_func(partial(eq, kind | None), _optional(converter, kind))
    converter.register_structure_hook_func(partial(eq, Paths | None), HOOKS[Paths])
    return converter


def _lists_in(kind: Any) -> Iterator[Any]:  # noqa: ANN401 - a type
    """Yield the list types among the settings of a table class, or in a type; inner tables first."""
    for inner in (field.type for field in fields(kind)) if has(kind) else get_args(kind):
        yield from _lists_in(inner)
    if get_origin(kind) is tuple:
        yield kind


def _optional(converter: Converter, kind: Any) -> Hook:  # noqa: ANN401 - a type
    """Return the hook of ``kind | None``: that of ``kind``, because TOML has no null."""
    structure = converter.get_structure_hook(kind)

    def hook(value: object, _: object) -> object:
        return structure(value, kind)

    return hook


_CONVERTER = _converter()


def _problems(error: Exception, path: str = "") -> list[str]:
    """Flatten the errors collected by cattrs into lines that begin with a key path."""
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
        unknown = {f"{path}.{key}".lstrip("."): key for key in sorted(error.extra_fields)}
        return [f"{where}: unknown key{_perhaps(key, known)}" for where, key in unknown.items()]
    if isinstance(error, KeyError):
        return [f"{path}: is missing"]
    return [f"{path}: {error if isinstance(error, ValueError) else 'must be a table'}"]


def _perhaps(key: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - loaded where something is wrong

    # A key can be in ``known`` because other rules have it. It is spelled right, so suggest nothing.
    near = get_close_matches(key, known, n=1) if key not in known else []
    return f"; is {near[0]} meant?" if near else ""


@frozen
class _Entry:
    """The valid values of one ``[[asterisk]]``. Invalid ones are reported elsewhere; here they have defaults.

    ``key`` is its key path (``asterisk[0]``). ``name`` is None if the name is invalid. ``judged`` is false if
    the name or a key about the secret is invalid: then it is unknown where the secret is, so it is not read.
    """

    key: str
    name: str | None
    ami: AmiSettings
    judged: bool


def _entries(tree: Mapping[str, object]) -> list[_Entry]:
    """Return the valid part of each ``[[asterisk]]`` table, for the checks that compare several keys.

    So these checks report their mistakes together with all others.
    """
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
    """Return those values of a TOML table, by key, that are valid for the settings class ``kind``."""
    found = {}
    for attribute in fields(kind):
        if attribute.name in table:
            with suppress(Exception):
                found[attribute.name] = _CONVERTER.structure(table[attribute.name], attribute.type)
    return found


_Table = TypeVar("_Table", bound=AttrsInstance)


def _partly(value: object, kind: type[_Table]) -> _Table:
    """Return settings of the class ``kind``: valid values come from a TOML table, others are defaults."""
    table = value if isinstance(value, Mapping) else {}
    found = {}
    for attribute in fields(kind):
        if attribute.name in table:
            with suppress(Exception):
                found[attribute.name] = _right_part(table[attribute.name], attribute.type)
    return kind(**found)


def _right_part(value: object, kind: Any) -> object:  # noqa: ANN401 - a type
    """Convert the valid part of ``value`` to the type ``kind``; raise an exception if no part is valid."""
    if has(kind):
        return _partly(value, kind)
    inner = get_args(kind)[:1]
    if isinstance(value, list) and inner and get_origin(kind) is tuple and has(inner[0]):
        return tuple(_partly(one, inner[0]) for one in value)
    return _CONVERTER.structure(value, kind)


def _clashes(entries: Sequence[_Entry], *, none: bool) -> list[str]:
    """Return the problems with the list of Asterisks, their names and their certificates.

    ``none``: the file has no ``[[asterisk]]``.
    """
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
            except OSError as error:  # SSLError is an OSError
                problems.append(f"{entry.key}.ami.tls_ca: cannot be used: {error}")
    return problems


def _shared_logs(asterisks: Sequence[AsteriskSettings]) -> list[str]:
    """Return a problem for each log that is read twice, because its attempts would count twice."""
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
    """Read the AMI secrets; return the secrets and a line for each problem.

    If the whole file is valid, there is one secret for each entry. It is None for an Asterisk without AMI.
    """
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


def _without_source(settings: Settings) -> list[str]:
    """Return a problem for each PBX of which neither AMI nor a log is read: copied packets do not suffice."""
    return [
        f"asterisk[{index}]: it has no source; fix: ami.enabled = true, or logs.paths"
        for index, pbx in enumerate(settings.asterisk_with_logs())
        if not pbx.ami.enabled and not pbx.logs.wanted
    ]


def _secret(entry: _Entry, environ: Mapping[str, str]) -> Secret:
    ami = entry.ami
    if ami.secret is not None and ami.secret_file is not None:
        raise ValueError("secret: is given twice, here and by secret_file; keep one")
    if ami.secret is not None:
        return ami.secret
    if ami.secret_file is not None:
        return read_secret(ami.secret_file, "secret_file")
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    path = Path(credentials) / f"{entry.name}.secret" if credentials else None
    if path is None or not is_visible(path):
        raise ValueError(
            "secret: is missing; name a file that holds it with secret_file, "
            f'or give the unit a credential "{entry.name}.secret"'
        )
    return read_secret(path, "secret")
