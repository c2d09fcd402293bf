"""Accounts of Asterisk, and what each permits: chan_sip, IAX2, PJSIP and its wizard.

A password is checked while the file is read. Only the result is kept, not the password. Accounts that
Asterisk reads from a database are not checked, because the files do not contain them.
"""

from collections.abc import Callable, Iterable, Iterator

from attrs import evolve, frozen

from ringfence.host.asterisk_conf import AsteriskFiles, Conf, Section, is_true, joined
from ringfence.host.asterisk_logging import is_loaded, read_modules, unread_of
from ringfence.host.conf_reader import Unread
from ringfence.host.console import Console
from ringfence.host.console_tables import settings_from
from ringfence.values.secret import Secret

# -- passwords that can be guessed at once. A password is checked here, and only the result is returned
#
# Attackers of a PBX try the account's name, then some hundred words and digit sequences. Each address has
# five guesses until it is banned, so an attacker with many addresses has thousands. A password must
# therefore resist ten thousand guesses; its strength beyond that is not checked.


MIN_LENGTH = 8
MIN_DIGITS = 12
"""The minimum length of a password of digits only: attackers try all short sequences of digits."""

_MAX_REST = 4
_MIN_DISTINCT = 4
_WELL_KNOWN = frozenset(
    {
        *("password", "passw0rd", "password1", "password123", "p@ssw0rd", "p@ssword", "secret", "secret123"),
        *("changeme", "changethis", "default", "letmein", "welcome", "welcome1", "qwerty", "qwertyuiop"),
        *("asterisk", "asterisk123", "freepbx", "trixbox", "elastix", "issabel", "amp109", "amp111"),
        *("admin", "admin123", "administrator", "root", "toor", "manager", "mysecret", "supersecret"),
        *("abc123", "abcd1234", "a1b2c3d4", "1q2w3e4r", "1qaz2wsx", "q1w2e3r4", "iloveyou", "test1234"),
        *("testtest", "telephone", "voip1234", "sip12345", "sippassword", "unsecurepassword", "verysecret"),
        *("change-this-secret", "yoursecret", "your_password", "yourpassword", "telecom1", "phone123"),
    }
)
"""Passwords from word lists of attackers, and from samples and manuals that administrators copy."""
_ROWS = ("0123456789" * 3, "9876543210" * 3, "abcdefghijklmnopqrstuvwxyz", "qwertyuiopasdfghjklzxcvbnm")


def is_weak(password: Secret, names: Iterable[str]) -> bool:
    """Whether a password can be guessed easily.

    This is so if it is short, well known, or a sequence of the alphabet, of digits or of the keyboard. It is
    also so if it has few different characters, or is little more than the account's ``names``.
    """
    clear = password.reveal().strip().lower()
    return (
        len(clear) < MIN_LENGTH
        or (clear.isdecimal() and len(clear) < MIN_DIGITS)
        or clear in _WELL_KNOWN
        or len(set(clear)) < _MIN_DISTINCT
        or any(clear in row for row in _ROWS)
        or _is_named(clear, names)
    )


def _is_named(clear: str, names: Iterable[str]) -> bool:
    """Whether a password is little more than names: at most ``_MAX_REST`` characters belong to none of them.

    ``clear`` is the password in lower case. ``names`` are those of its account, in any letter case; the
    password may contain them forwards or backwards.
    """
    rest = clear
    for name in sorted({name.strip().lower() for name in names} - {""}, key=len, reverse=True):
        rest = rest.replace(name, "").replace(name[::-1], "")
    return rest != clear and len(rest) <= _MAX_REST


ANONYMOUS = "anonymous"
"""The PJSIP endpoint for callers that match no other; its name may also be ``anonymous@DOMAIN``."""


@frozen
class Account:
    """An account of Asterisk.

    ``file``: the file that configures it. ``context``: the dialplan context in which its calls begin.
    ``passwordless``: anyone who knows its name can call without a password, and no ACL limits the addresses.
    ``weak``: its password can be guessed easily. ``hashed``: the password is stored as a hash, and
    cannot be checked. ``registers``: it is a phone, whose address is known only when it registers.
    ``restricted``: an ACL limits its addresses. ``limited``: its simultaneous calls are limited.
    """

    file: str
    name: str
    context: str
    passwordless: bool = False
    weak: bool = False
    hashed: bool = False
    registers: bool = False
    restricted: bool = False
    limited: bool = False


@frozen
class AsteriskAccounts:
    """The accounts, and the related settings of the channel drivers.

    ``guest_context``: the context of chan_sip callers without an account, "" if they are refused.
    ``reveals_accounts``: chan_sip's answers reveal which accounts exist (``alwaysauthreject = no``).
    ``autocreates``: chan_sip creates an account for any phone that registers (``autocreatepeer``).
    ``broken_tls``: options that select a broken TLS version. ``in_database``: tables of accounts, and
    files, that extconfig.conf maps to a database; these are not checked. ``unread``: parts of the files that
    are not known.
    """

    accounts: tuple[Account, ...] = ()
    guest_context: str = ""
    reveals_accounts: bool = False
    autocreates: bool = False
    broken_tls: tuple[str, ...] = ()
    in_database: tuple[str, ...] = ()
    unread: tuple[Unread, ...] = ()


_SECRETS = frozenset({"secret", "md5secret", "password", "md5_cred", "password_digest"}) | frozenset(
    {"inbound_auth/password", "inbound_auth/md5_cred"}
)
_WANTED = frozenset(
    {
        *("type", "context", "deny", "acl", "host", "username", "defaultuser", "insecure"),
        *("allowguest", "alwaysauthreject", "autocreatepeer", "tlsclientmethod", "call-limit", "busylevel"),
        *("hassip", "hasiax", "auth", "inkeys", "aors", "method"),
        *("max_contacts", "endpoint_identifier_order", "identify_by", "device_state_busy_at"),
        *("accepts_auth", "accepts_registrations", "inbound_auth/username"),
    }
)
"""The options of Asterisk's files that are read. Some others contain passwords, so they are skipped."""
_STORED = frozenset({"ps_endpoints", "ps_auths", "sippeers", "iaxusers", "iaxpeers"})
_ACLS = ("deny", "acl")  # a permit alone, without a deny, restricts nothing
_BROKEN_TLS = frozenset({"sslv2", "sslv3", "tlsv1", "tlsv1_1"})
_OWN = frozenset({"general", "authentication", "callnumberlimits"})


def read_accounts(files: AsteriskFiles, *, chan_sip: bool, iax2: bool, pjsip: bool) -> AsteriskAccounts:
    """Read the accounts from Asterisk's files.

    Each of ``chan_sip``, ``iax2`` and ``pjsip`` is True if Asterisk has loaded that channel driver. The files
    of other drivers are not read.
    """
    read = {
        name: files.read(name, _wanted, _is_secret) if loaded else None
        for name, loaded in {
            "sip.conf": chan_sip,
            "users.conf": chan_sip or iax2,
            "iax.conf": iax2,
            "pjsip.conf": pjsip,
            "pjsip_wizard.conf": pjsip,
            "extconfig.conf": True,
        }.items()
    }
    mapped = read["extconfig.conf"]
    sip, users, iax = read["sip.conf"], read["users.conf"], read["iax.conf"]
    general = sip.section("general") if sip else Section("general")
    return AsteriskAccounts(
        accounts=(
            *(_sip(sip) if sip else ()),
            *(_users(users, chan_sip=chan_sip, iax2=iax2) if users else ()),
            *(_iax(iax) if iax else ()),
            *(_pjsip(read["pjsip.conf"]) if read["pjsip.conf"] else ()),
            *(_wizard(read["pjsip_wizard.conf"]) if read["pjsip_wizard.conf"] else ()),
        ),
        guest_context=general.last("context", "default")
        if sip and is_true(general.last("allowguest", "yes"))
        else "",
        reveals_accounts=sip is not None and not is_true(general.last("alwaysauthreject", "yes")),
        autocreates=general.last("autocreatepeer", "no").lower() not in {"no", "false", "0", "off", ""},
        broken_tls=tuple(_broken_tls(read["sip.conf"], read["pjsip.conf"])),
        in_database=tuple(name for name, _ in mapped.section("settings").options if _is_stored(name))
        if mapped
        else (),
        unread=unread_of(read.values()),
    )


def _wanted(_: str, name: str) -> bool:
    return name.removeprefix("endpoint/") in _WANTED or _is_stored(name)


def _is_stored(name: str) -> bool:
    """Whether the option ``name`` of extconfig.conf moves accounts, or a whole file, into a database."""
    return name.lower() in _STORED or name.lower().endswith(".conf")


def _is_secret(_: str, name: str) -> bool:
    return name in _SECRETS


def _is_bounded(section: Section, options: Iterable[str] = _ACLS) -> bool:
    return any(section.last(option) for option in options)


def _sip(conf: Conf) -> Iterator[Account]:
    context = conf.section("general").last("context", "default")
    for section in _named(conf, lambda section: bool(section.values("type"))):
        if section.last("type") in {"peer", "user", "friend"}:
            yield _chan_sip("sip.conf", section, context, section.last("type"))


def _chan_sip(file: str, section: Section, context: str, kind: str) -> Account:
    dynamic = kind != "user" and section.last("host", "" if file == "sip.conf" else "dynamic") == "dynamic"
    secret, hashed = section.secret("secret"), section.secret("md5secret")
    # Asterisk identifies a peer with a fixed address by that address, and a user or friend by the name in the
    # request.
    by_name = dynamic or kind != "peer"
    insecure = {"invite", "very", "yes"} & {part.strip() for part in section.last("insecure").split(",")}
    names = (section.name, section.last("username"), section.last("defaultuser"))
    limits = "call-limit", "busylevel"
    return Account(
        file,
        section.name,
        section.last("context", context),
        passwordless=by_name and (bool(insecure) or not (secret or hashed)) and not _is_bounded(section),
        weak=by_name and not hashed and secret is not None and is_weak(secret, names),
        hashed=hashed is not None,
        registers=dynamic,
        restricted=_is_bounded(section),
        limited=any(section.last(limit) for limit in limits),
    )


def _users(conf: Conf, *, chan_sip: bool, iax2: bool) -> Iterator[Account]:
    """Yield the accounts of users.conf whose channel driver is loaded.

    ``hassip`` makes an account one of chan_sip, ``hasiax`` one of IAX2. The options of [general] are the
    defaults of each account.
    """
    general = conf.section("general")
    drivers = (("hassip", chan_sip), ("hasiax", iax2))

    def counts(section: Section) -> bool:
        return any(loaded and is_true(section.last(has, general.last(has))) for has, loaded in drivers)

    for section in _named(conf, counts):
        yield _chan_sip("users.conf", joined(section.name, (general, section)), "default", "friend")


def _iax(conf: Conf) -> Iterator[Account]:
    for section in _named(conf, lambda section: bool(section.values("type"))):
        if section.last("type") not in {"user", "friend", "peer"}:
            continue
        secret = section.secret("secret")
        calls = section.last("type") != "peer"
        dynamic = calls is False or section.last("type") == "friend"
        by_key = "rsa" in section.last("auth") or section.last("inkeys")
        yield Account(
            "iax.conf",
            section.name,
            section.last("context", "default"),
            passwordless=calls and secret is None and not by_key and not _is_bounded(section),
            weak=secret is not None
            and (calls or section.last("host") == "dynamic")
            and is_weak(secret, (section.name, section.last("username"))),
            registers=dynamic and section.last("host") == "dynamic",
            restricted=_is_bounded(section),
            limited=True,  # IAX2 has no option that limits calls: a finding would have no fix
        )


_MAX_AUTHS = 8
"""The maximum number of an endpoint's passwords that are compared with the endpoint's own name."""


@frozen
class _Auth:
    """A PJSIP section of type ``auth``, with its own ``names``. Endpoints share it, so it is checked once.

    ``password`` is None if only a hash is stored. ``weak``: it can be guessed easily, also without the name
    of an endpoint.
    """

    password: Secret | None
    names: tuple[str, ...]
    weak: bool
    hashed: bool


def _auth(section: Section) -> _Auth:
    hashed = section.secret("md5_cred") is not None or section.secret("password_digest") is not None
    password, names = section.secret("password"), (section.name, section.last("username"))
    if hashed and password is None:
        return _Auth(None, names, weak=False, hashed=True)
    known = password or Secret("")
    return _Auth(known, names, is_weak(known, names), hashed)


def _pjsip(conf: Conf) -> Iterator[Account]:
    kinds = {kind: _of_kind(conf, kind) for kind in ("endpoint", "auth", "aor", "global", "acl")}
    auths = {section.name: _auth(section) for section in kinds["auth"]}
    aors = {section.name: section.last("max_contacts", "0") != "0" for section in kinds["aor"]}
    order = (kinds["global"] or [Section("")])[-1].last("endpoint_identifier_order", "ip,username,anonymous")
    restricted_for_all = any(_is_bounded(section) for section in kinds["acl"])
    for section in kinds["endpoint"]:
        given = [auths[name] for name in dict.fromkeys(_list(section.last("auth"))) if name in auths]
        anonymous = section.name.partition("@")[0] == ANONYMOUS
        known_by = "anonymous" if anonymous else section.last("identify_by", "username,ip")
        restricted = restricted_for_all or _is_bounded(section)
        passwordless = not section.last("auth") and bool(
            (set(_list(known_by)) - {"ip", "header"}) & set(_list(order))
        )
        yield Account(
            "pjsip.conf",
            section.name,
            section.last("context", "default"),
            passwordless=passwordless and not restricted,
            weak=any(auth.weak for auth in given)
            or any(_is_weak_auth(auth, section.name) for auth in given[:_MAX_AUTHS]),
            hashed=any(auth.hashed for auth in given),
            registers=bool(given) and any(aors.get(name) for name in _list(section.last("aors"))),
            restricted=restricted,
            limited=section.last("device_state_busy_at", "0") != "0",
        )


def _is_weak_auth(auth: _Auth, endpoint: str) -> bool:
    return auth.password is not None and is_weak(auth.password, (endpoint, *auth.names))


def _wizard(conf: Conf) -> Iterator[Account]:
    acls = [f"endpoint/{option}" for option in _ACLS]
    for section in _of_kind(conf, "wizard"):
        asked = is_true(section.last("accepts_auth"))
        secret = section.secret("inbound_auth/password")
        known_by = set(_list(section.last("endpoint/identify_by", "username,ip")))
        names = (section.name, section.last("inbound_auth/username"))
        yield Account(
            "pjsip_wizard.conf",
            section.name,
            section.last("endpoint/context", "default"),
            passwordless=not asked and not known_by <= {"ip", "header"} and not _is_bounded(section, acls),
            weak=asked and secret is not None and is_weak(secret, names),
            hashed=asked and section.secret("inbound_auth/md5_cred") is not None,
            registers=is_true(section.last("accepts_registrations")),
            restricted=_is_bounded(section, acls),
            limited=section.last("endpoint/device_state_busy_at", "0") != "0",
        )


def _broken_tls(sip: Conf | None, pjsip: Conf | None) -> Iterator[str]:
    """Yield the options that select a broken SSL or TLS version.

    Without such an option the TLS library chooses the version. It never chooses a broken one.
    """
    if sip is not None and sip.section("general").last("tlsclientmethod").lower() in _BROKEN_TLS:
        yield "tlsclientmethod in sip.conf [general]"
    for transport in _of_kind(pjsip, "transport") if pjsip else ():
        if transport.last("method").lower() in _BROKEN_TLS:
            yield f"method in pjsip.conf [{transport.name}]"


def _of_kind(conf: Conf, kind: str) -> list[Section]:
    return [section for section in conf.sections if section.last("type").lower() == kind]


def _named(conf: Conf, counts: Callable[[Section], bool]) -> Iterator[Section]:
    """Yield one section of ``conf`` for each account. Sections of the same name are joined into one.

    Sections that are no accounts, such as ``general``, are left out. ``counts`` is whether Asterisk uses a
    section: it ignores one without a type, even if another section of this name has a type.
    """
    groups: dict[str, list[Section]] = {}
    for section in conf.sections:
        if section.name.lower() not in _OWN and counts(section):
            groups.setdefault(section.name, []).append(section)
    for name, parts in groups.items():
        yield joined(name, parts)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


_DRIVERS = {"chan_sip": "chan_sip", "iax2": "chan_iax2", "pjsip": "res_pjsip"}


def accounts_in_force(files: AsteriskFiles, console: Console) -> AsteriskAccounts:
    """Return the accounts of the loaded drivers, from Asterisk's files.

    If the console shows the settings of chan_sip that are in force, these count: the file may have changed
    since Asterisk read it.
    """
    drivers = {name: _is_loaded(files, console, module) for name, module in _DRIVERS.items()}
    accounts = read_accounts(files, **drivers)
    shown = settings_from(console.show("sip show settings") or "")
    guest_context = shown.get("allow unknown access")
    if guest_context is None:
        return accounts
    return evolve(
        accounts,
        guest_context=shown.get("context", "default") if guest_context == "Yes" else "",
        reveals_accounts=shown.get("always auth rejects") == "No",
        autocreates=shown.get("autocreate peer", "Off") != "Off",
    )


def _is_loaded(files: AsteriskFiles, console: Console, module: str) -> bool:
    """Whether Asterisk has loaded ``module``.

    The console decides, or modules.conf if the console does not answer. If a part of modules.conf cannot be
    read, the module counts as loaded.
    """
    shown = console.show(f"module show like {module}.so")
    if shown is None:
        modules = read_modules(files)
        return is_loaded(modules, module) or bool(modules and modules.unread)
    return is_running(module, shown)


def is_running(module: str, shown: str) -> bool:
    """Whether ``module`` runs, according to ``shown``, the output of Asterisk's ``module show``."""
    lines = (line for line in shown.split("\n") if line.startswith(f"{module}.so "))
    return any(" Running " in line and " Not Running " not in line for line in lines)
