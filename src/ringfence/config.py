"""The configuration: a TOML file → typed settings, or every problem at once, each with its key path.

Every key has a default but the AMI secret. Unknown keys, wrong types and impossible values are all found in
one reading, since an administrator mends a file once, not a line at a time. So what a value may be is checked
while it is read (the hooks below) and not in constructors, which would stop at the first fault.

Secrets come from the file itself, from a file of their own (``secret_file``), or, where neither is named,
from the systemd credential ``NAME.secret``, NAME being the Asterisk's. They are read here, once, and travel
as :class:`ringfence.model.Secret`.
"""

import os
import re
import ssl
import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from ipaddress import ip_network
from operator import eq
from pathlib import Path
from typing import Any, NewType

from attrs import Factory, evolve, frozen
from cattrs import AttributeValidationNote, ClassValidationError, Converter, IterableValidationError
from cattrs.errors import ForbiddenExtraKeysError

from ringfence.detect.rules import RULES, Rule
from ringfence.errors import ConfigError
from ringfence.firewall import BACKENDS
from ringfence.model import Network, Secret

DEFAULT_PATH = Path("/etc/ringfence/ringfence.toml")
MAX_SECRET_BYTES = 1024
MAX_ATTEMPTS = 1_000
MAX_DURATION = 10 * 365 * 86_400.0

Text = NewType("Text", str)
Name = NewType("Name", str)
Port = NewType("Port", int)
Count = NewType("Count", int)
Duration = NewType("Duration", float)
Ladder = NewType("Ladder", tuple[float, ...])
BackendName = NewType("BackendName", str)


@frozen
class AmiSettings:
    """``[asterisk.ami]``: how to reach one Asterisk's manager interface, and whom to be there.

    ``tls_ca`` is a file of certificates to trust in place of the system's own; ``tls_verify`` set to false
    accepts any certificate (Asterisk's samples are self-signed). ``trust_chan_sip`` lets attempts that
    chan_sip tells of lead to bans, though a Via ``maddr`` can put anybody's address into them.
    """

    host: Text = Text("127.0.0.1")
    port: Port = Port(5038)
    username: Text = Text("ringfence")
    secret: Secret | None = None
    secret_file: Path | None = None
    tls: bool = False
    tls_ca: Path | None = None
    tls_verify: bool = True
    trust_chan_sip: bool = False


@frozen
class AsteriskSettings:
    """``[[asterisk]]``: one PBX and the ways to hear it."""

    name: Name = Name("asterisk")
    ami: AmiSettings = Factory(AmiSettings)


@frozen
class FirewallSettings:
    """``[firewall]``. ``backend``: ``auto``, ``ipset`` or ``memory`` (a dry run: nothing is dropped)."""

    backend: BackendName = BackendName("auto")


@frozen
class AllowSettings:
    """``[allow]``: networks that are never banned, besides loopback and this host's own addresses."""

    networks: tuple[Network, ...] = ()


@frozen
class RuleSettings:
    """``[rules.NAME]``: so many attempts within a window are a ban of such a length.

    ``ban`` is one length, or a list: of the first ban, of the next on return within 30 days, and so on.
    """

    attempts: Count
    window: Duration
    ban: Ladder


@frozen
class StoreSettings:
    """``[store]``: where bans and their attempts are kept."""

    path: Path = Path("/var/lib/ringfence/ringfence.db")


@frozen
class ControlSettings:
    """``[control]``: the socket on which the command line talks to the daemon."""

    socket: Path = Path("/run/ringfence/control.sock")


def _default_rules() -> dict[str, RuleSettings]:
    return {r.name: RuleSettings(Count(r.attempts), Duration(r.window), Ladder(r.ban)) for r in RULES}


@frozen
class Settings:
    """The whole file. ``rules`` has an entry for every rule there is."""

    asterisk: tuple[AsteriskSettings, ...] = (AsteriskSettings(),)
    firewall: FirewallSettings = Factory(FirewallSettings)
    allow: AllowSettings = Factory(AllowSettings)
    rules: Mapping[str, RuleSettings] = Factory(_default_rules)
    store: StoreSettings = Factory(StoreSettings)
    control: ControlSettings = Factory(ControlSettings)

    def rule_table(self) -> tuple[Rule, ...]:
        """Give the rules with the numbers of this configuration."""
        return tuple(
            evolve(rule, attempts=mine.attempts, window=mine.window, ban=tuple(mine.ban))
            for rule in RULES
            for mine in [self.rules[rule.name]]
        )

    def trusting_chan_sip(self) -> frozenset[str]:
        """Give the names of the Asterisks whose chan_sip addresses are to be believed."""
        return frozenset(pbx.name for pbx in self.asterisk if pbx.ami.trust_chan_sip)


def load(path: Path, environ: Mapping[str, str] = os.environ, *, secrets: bool = True) -> Settings:
    """Read ``path`` and the secrets it names; raise ConfigError with every problem found.

    Without ``secrets`` none is read or missed: a command that talks to nobody's AMI needs none, and whoever
    runs it may not be allowed to read them.
    """
    try:
        with path.open("rb") as file:
            tree = tomllib.load(file)
    except FileNotFoundError:
        raise ConfigError(str(path), ["there is no such file; copy examples/minimal.toml there"]) from None
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"is not TOML: {error}"]) from None
    return parse(tree, str(path), environ, secrets=secrets)


def parse(
    tree: Mapping[str, object], where: str, environ: Mapping[str, str] = os.environ, *, secrets: bool = True
) -> Settings:
    """Make settings of a TOML document; ``where`` names it in the ConfigError."""
    problems: list[str] = []
    settings = Settings()
    try:
        settings = _CONVERTER.structure(tree, Settings)
    except Exception as error:  # noqa: BLE001 - cattrs gathers what the hooks raise into groups of its own
        problems += _problems(error) + (_missing_secrets(tree, environ) if secrets else [])
    if not problems:
        problems += _clashes(settings)
        settings, missing = _with_secrets(settings, environ) if secrets else (settings, [])
        problems += missing
    if problems:
        raise ConfigError(where, problems)
    return settings


def parse_duration(text: object) -> float:
    """Read ``"90s"``, ``"10m"``, ``"1h"``, ``"7d"`` or ``"2w"`` → seconds; else raise ValueError."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < seconds <= MAX_DURATION:
        raise ValueError('must be a duration such as "90s", "10m", "1h" or "7d", at most ten years')
    return seconds


_DURATION = re.compile(r"([0-9]{1,9})([smhdw])")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}


def _text(value: object, _: object = None) -> str:
    if not isinstance(value, str) or not value or any(ord(character) < ord(" ") for character in value):
        raise ValueError("must be a text, not empty, without control characters")
    return value


def _truth(value: object, _: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _whole(lowest: int, highest: int) -> Callable[[object, object], int]:
    def hook(value: object, _: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise ValueError(f"must be a whole number from {lowest} to {highest}")
        return value

    return hook


def _path(value: object, _: object) -> Path:
    path = Path(_text(value))
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return path


def _ladder(value: object, _: object) -> Ladder:
    steps = value if isinstance(value, list) else [value]
    if not steps:
        raise ValueError('must be a duration such as "1h", or a list of them')
    return Ladder(tuple(parse_duration(step) for step in steps))


def _network(value: object, _: object) -> Network:
    try:
        return ip_network(_text(value))
    except ValueError as error:
        raise ValueError(f'must be an address or a network such as "192.0.2.0/24": {error}') from None


def _backend(value: object, _: object) -> BackendName:
    if value not in BACKENDS:
        raise ValueError("must be one of " + ", ".join(f'"{name}"' for name in BACKENDS))
    return BackendName(str(value))


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _name(value: object, _: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("must be a name of letters, digits, '.', '_' and '-'")
    return value


def _list_only(structure: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Wrap a hook that would take a text for the list of its letters."""

    def hook(value: object, kind: object) -> object:
        if not isinstance(value, list):
            raise ValueError("must be a list")
        return structure(value, kind)

    return hook


def _rules(converter: Converter) -> Callable[[object, object], Mapping[str, RuleSettings]]:
    """Make the hook for ``[rules]``: what a rule's table leaves out keeps its default."""
    defaults = {
        rule.name: {
            "attempts": rule.attempts,
            "window": f"{rule.window:.0f}s",
            "ban": [f"{step:.0f}s" for step in rule.ban],
        }
        for rule in RULES
    }

    def hook(value: object, _: object) -> Mapping[str, RuleSettings]:
        if not isinstance(value, Mapping):
            raise TypeError
        found = _default_rules()
        faults: list[Exception] = []
        for name, table in value.items():
            try:
                if name not in defaults:
                    raise ValueError("no such rule; there are: " + ", ".join(defaults))
                if not isinstance(table, Mapping):
                    raise TypeError
                found[name] = converter.structure({**defaults[name], **table}, RuleSettings)
            except Exception as fault:  # noqa: BLE001 - gathered, as cattrs gathers them
                fault.add_note(AttributeValidationNote("", name, RuleSettings))
                faults.append(fault)
        if faults:
            raise ClassValidationError("rules", faults, RuleSettings)
        return found

    return hook


def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    hooks: dict[Any, Callable[[Any, Any], Any]] = {
        Text: _text,
        Name: _name,
        Port: _whole(1, 65_535),
        Count: _whole(1, MAX_ATTEMPTS),
        Duration: lambda value, _: parse_duration(value),
        Ladder: _ladder,
        BackendName: _backend,
        bool: _truth,
        Path: _path,
        Path | None: _path,
        Network: _network,
        Secret | None: lambda value, _: Secret(_text(value)),
        Mapping[str, RuleSettings]: _rules(converter),
    }
    for kind, hook in hooks.items():
        converter.register_structure_hook_func(partial(eq, kind), hook)
    for kind in (tuple[AsteriskSettings, ...], tuple[Network, ...]):
        listed = _list_only(converter.get_structure_hook(kind))
        converter.register_structure_hook_func(partial(eq, kind), listed)
    return converter


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
        return [f"{f'{path}.{key}'.lstrip('.')}: unknown key" for key in sorted(error.extra_fields)]
    return [f"{path}: {error if isinstance(error, ValueError) else 'must be a table'}"]


def _clashes(settings: Settings) -> list[str]:
    """Check what no key can check alone."""
    problems = [] if settings.asterisk else ["asterisk: must have at least one entry"]
    names: set[str] = set()
    for index, pbx in enumerate(settings.asterisk):
        if pbx.name in names:
            problems.append(
                f'asterisk[{index}].name: "{pbx.name}" is taken; give each [[asterisk]] a name of its own'
            )
        names.add(pbx.name)
        if pbx.ami.tls_ca is not None and pbx.ami.tls:
            try:
                ssl.create_default_context(cafile=pbx.ami.tls_ca)
            except OSError as error:  # SSLError is one
                problems.append(f"asterisk[{index}].ami.tls_ca: cannot be used: {error}")
    return problems


def _with_secrets(settings: Settings, environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """Read the secrets that live elsewhere."""
    problems: list[str] = []
    known: list[AsteriskSettings] = []
    for index, pbx in enumerate(settings.asterisk):
        try:
            known.append(evolve(pbx, ami=evolve(pbx.ami, secret=_secret(pbx, environ))))
        except ValueError as error:
            problems.append(f"asterisk[{index}].ami.{error}")
    return evolve(settings, asterisk=tuple(known)), problems


def _secret(pbx: AsteriskSettings, environ: Mapping[str, str]) -> Secret:
    if pbx.ami.secret is not None and pbx.ami.secret_file is not None:
        raise ValueError("secret: is given twice, here and by secret_file; keep one")
    if pbx.ami.secret is not None:
        return pbx.ami.secret
    if pbx.ami.secret_file is not None:
        return _read_secret(pbx.ami.secret_file, "secret_file")
    credential = _credential(pbx.name, environ)
    if credential is None:
        raise ValueError(_MISSING.format(name=pbx.name))
    return _read_secret(credential, "secret")


_MISSING = (
    "secret: is missing; name a file that holds it with secret_file, "
    'or give the unit a credential "{name}.secret"'
)


def _credential(name: str, environ: Mapping[str, str]) -> Path | None:
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    path = Path(credentials) / f"{name}.secret" if credentials else None
    return path if path is not None and path.exists() else None


def _missing_secrets(tree: Mapping[str, object], environ: Mapping[str, str]) -> list[str]:
    """Find the entries without a secret in a file that is wrong in other ways too."""
    entries = tree.get("asterisk", [{}])
    problems = []
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        ami = entry.get("ami", {}) if isinstance(entry, Mapping) else None
        name = entry.get("name", AsteriskSettings().name) if isinstance(entry, Mapping) else ""
        if isinstance(ami, Mapping) and not {"secret", "secret_file"} & set(ami) and isinstance(name, str):
            usable = _NAME.fullmatch(name) and _credential(name, environ)
            problems += [] if usable else [f"asterisk[{index}].ami.{_MISSING.format(name=name)}"]
    return problems


def _read_secret(path: Path, key: str) -> Secret:
    try:
        with path.open("rb") as file:
            clear = file.read(MAX_SECRET_BYTES + 1).decode("utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"{key}: {path} cannot be read: {reason}") from None
    if len(clear) > MAX_SECRET_BYTES:
        raise ValueError(f"{key}: {path} holds more than {MAX_SECRET_BYTES} bytes")
    try:
        return Secret(_text(clear))
    except ValueError as error:
        raise ValueError(f"{key}: {path}: {error}") from None
