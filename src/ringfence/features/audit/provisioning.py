"""Folders with the settings of phones that a web server of this host serves to anybody.

Phones fetch their settings, with their passwords, from such a folder. Its files have names with the phone's
address of Ethernet (MAC), which can be guessed. Then a stranger logs in with the right password.

Only files of Apache and nginx are read, as far as they are simple: includes are not followed, and a folder
whose protection is not plain counts as protected. So a finding is certain, and no finding proves nothing.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from attrs import define, field, frozen

from ringfence.findings import Finding
from ringfence.host.owned_files import exists, matching, names_in, read_file
from ringfence.plurals import counted
from ringfence.values.network import is_loopback
from ringfence.values.text import printable

APACHE = (
    *("etc/apache2/apache2.conf", "etc/apache2/conf-enabled/*.conf", "etc/apache2/sites-enabled/*"),
    *("etc/httpd/conf/httpd.conf", "etc/httpd/conf.d/*.conf"),
)
NGINX = ("etc/nginx/nginx.conf", "etc/nginx/conf.d/*.conf", "etc/nginx/sites-enabled/*")
"""The files of both web servers, below the root folder, as Debian and RHEL have them."""

_MOST_FILES, _MOST_BYTES, _MOST_NAMES = 200, 1 << 20, 100_000
_PHONE = re.compile(
    r"(?:.{0,40}[^0-9a-f])?[0-9a-f]{12}(?:[^0-9a-f].{0,40})?\.(?:cfg|xml|cnf|conf|boot|ini|txt|htm|json)"
)
_BELOW = ("provisioning", "provision", "prov", "tftpboot", "tftp", "phoneprov", "phones", "cfg")
"""Names of folders in the root folder of a web site that are looked into, too."""


@frozen
class Served:
    """A folder that a web server serves to anybody. ``where`` is the file that says so."""

    server: str
    folder: Path
    where: Path


def provisioning_findings(root: Path = Path("/")) -> Iterator[Finding]:
    """Yield a finding for each folder with settings of phones that is served without a password.

    ``root`` is the root folder of this host.
    """
    seen: set[tuple[str, Path]] = set()
    for served in (*_apache(root), *_nginx(root)):
        if (served.server, served.folder) in seen:
            continue
        seen.add((served.server, served.folder))
        here = root / served.folder.relative_to("/")
        if served.server == "Apache" and exists(here / ".htaccess"):  # it may protect the folder
            continue
        phones = _phones_in(here)
        if not phones:
            continue
        where = f"{printable(str(served.folder))} without a password ({printable(str(served.where))})"
        files = f"{counted(len(phones), 'file')} of phones, such as {printable(phones[0])}"
        why = "strangers guess their names, and read the phones' passwords"
        detail = f"{served.server} serves {where}, with {files}: {why}; fix: {_FIXES[served.server]}"
        yield Finding(False, "hardening: provisioning", detail)


_FIXES = {
    "Apache": "AuthType Basic, AuthName, AuthUserFile and Require valid-user there, or Require ip NETWORKS",
    "nginx": "auth_basic and auth_basic_user_file there, or allow NETWORKS and deny all",
}


def _phones_in(folder: Path) -> list[str]:
    """Return the sorted names of files in ``folder`` that are the settings of one phone."""
    try:
        names = names_in(folder)[:_MOST_NAMES]
    except OSError:
        return []
    return [name for name in names if _PHONE.fullmatch(name.lower())]


def _texts(root: Path, patterns: Iterable[str]) -> Iterator[tuple[Path, str]]:
    """Yield the path on this host, and the text, of each file that matches one of the patterns."""
    files = [file for pattern in patterns for file in matching(root / pattern)]
    for file in files[:_MOST_FILES]:
        with suppress(OSError):
            data, _ = read_file(file, _MOST_BYTES)
            yield Path("/") / file.relative_to(root), data.decode("utf-8", "replace")


def _path(text: str) -> Path | None:
    """Return an absolute path without ``..`` and variables; None for any other text."""
    found = PurePosixPath(text)
    plain = found.is_absolute() and ".." not in found.parts and not any(mark in text for mark in "$%*?[")
    return Path(found) if plain else None


def _fit(page: str, folder: str) -> bool:
    """Whether both end with a slash, or neither.

    Otherwise the server puts no slash, or two, between the folder and the name of a file, and finds nothing.
    Both Apache 2.4 and nginx 1.22 did so.
    """
    return page.endswith("/") == folder.endswith("/")


# -- Apache: sections in angle brackets, one directive on each line


@define
class _Section:
    """A section such as ``<Directory /tftpboot>``, with what its directives decide.

    ``open`` is whether anybody may read what it is about; None if it does not say.
    """

    name: str = ""
    argument: str = ""
    open: bool | None = None
    local: bool = False


@define
class _Apache:
    """What Apache's files serve, and which sections protect or open folders and addresses of pages."""

    served: list[tuple[str, Path, Path]] = field(factory=list)  # the address of the page, folder, file
    folders: list[tuple[Path, bool]] = field(factory=list)
    pages: list[tuple[str, bool]] = field(factory=list)


def _apache(root: Path) -> Iterator[Served]:
    found = _Apache()
    for file, text in _texts(root, APACHE):
        _read_apache(file, text, found)
    below = [
        (f"{page.rstrip('/')}/{name}", folder / name, file)
        for page, folder, file in found.served
        for name in ("", *_BELOW)
    ]
    for page, folder, file in below:
        around = [(one, is_open) for one, is_open in found.folders if one == folder or one in folder.parents]
        narrowest = max((len(one.parts) for one, _ in around), default=0)
        nearest = [is_open for one, is_open in around if len(one.parts) == narrowest]
        here = [is_open for one, is_open in found.pages if f"{page}/".startswith(f"{one.rstrip('/')}/")]
        if all(nearest) and all(here):
            yield Served("Apache", folder, file)


def _read_apache(file: Path, text: str, found: _Apache) -> None:
    """Add what one file of Apache says to ``found``."""
    stack = [_Section()]
    for line in text.replace("\\\n", " ").split("\n"):
        words = _words(line)
        if not words or words[0].startswith("#"):
            continue
        if not words[0].startswith("<"):
            _read_directive(words, stack[-1], file, found)
        elif not words[0].startswith("</"):
            stack.append(_begun(words, stack[-1]))
        elif len(stack) > 1:
            _close(stack.pop(), stack[-1], found)
    while len(stack) > 1:
        _close(stack.pop(), stack[-1], found)


def _begun(words: list[str], outer: _Section) -> _Section:
    """Return the section that a line such as ``<VirtualHost *:84>`` begins."""
    name, *arguments = (word.rstrip(">") for word in words)
    places = [one for one in arguments if one]
    local = name.lower() == "<virtualhost" and bool(places) and all(map(_is_local, places))
    return _Section(name.lower(), places[0] if places else "", local=outer.local or local)


def _read_directive(words: list[str], section: _Section, file: Path, found: _Apache) -> None:
    """Record what a directive of Apache serves, or what it decides for its section."""
    name = words[0].lower()
    if name == "require" and words[1:2] != ["not"]:
        is_open = [word.lower() for word in words[1:]] == ["all", "granted"]
        section.open = is_open and section.open is not False
    elif name in ("deny", "authtype"):
        section.open = False
    elif name in ("documentroot", "alias") and not section.local:
        folder = _path(words[-1])
        if folder is None or len(words) != (2 if name == "documentroot" else 3):
            return
        if name == "documentroot":
            found.served.append(("/", folder, file))
        elif _fit(words[1], words[2]):
            found.served.append((words[1], folder, file))


_PATTERNS = ("<directory", "<directorymatch", "<locationmatch", "<files", "<filesmatch", "<virtualhost")
"""Sections about a pattern of names, or a whole site. They may be about any folder."""


def _close(section: _Section, outer: _Section, found: _Apache) -> None:
    """Record what a section has decided, when it ends."""
    folder = _path(section.argument)
    if section.open is None or (section.name == "<filesmatch" and ".ht" in section.argument):
        return
    if section.name == "<directory" and folder is not None:
        found.folders.append((folder, section.open))
    elif section.name == "<location":
        found.pages.append((section.argument, section.open))
    elif section.name in _PATTERNS:
        found.pages.append(("/", section.open))
    else:  # such as <RequireAll>, <Limit> or <IfModule>: it is part of the section around it
        outer.open = section.open and outer.open is not False


def _words(line: str) -> list[str]:
    """Return the words of a line; quotes enclose a word with blanks."""
    return [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|([^\s"]+)', line)]


def _is_local(place: str) -> bool:
    """Whether an address with a port, such as ``127.0.0.1:84``, is of this host alone."""
    return is_loopback(place.rpartition(":")[0].strip("[]") or place)


# -- nginx: blocks in braces, directives that end with a semicolon


@define
class _Block:
    """A block of nginx: the words before its brace, its directives, and the blocks in it."""

    head: list[str] = field(factory=list)
    lines: list[list[str]] = field(factory=list)
    blocks: "list[_Block]" = field(factory=list)

    def last(self, *names: str) -> list[str]:
        """Return the last directive with one of these names; [] without one."""
        return next((line for line in reversed(self.lines) if line[0] in names), [])

    def guards(self, outer: frozenset[str]) -> frozenset[str]:
        """Return what protects the block: a password, or the addresses of readers.

        ``outer`` is what protects the block around it.
        """
        basic, addresses = self.last("auth_basic"), self.last("allow", "deny")
        password = basic[1:] != ["off"] if basic else "password" in outer
        address = addresses[:2] == ["deny", "all"] if addresses else "address" in outer
        other = "other" in outer or bool(self.last("auth_request", "internal"))
        found = {"password": password, "address": address, "other": other}
        return frozenset(name for name, there in found.items() if there)


def _nginx(root: Path) -> Iterator[Served]:
    for file, text in _texts(root, NGINX):
        for folder in _folders_of(_parsed(text), frozenset()):
            for name in ("", *_BELOW):
                yield Served("nginx", folder / name, file)


def _parsed(text: str) -> _Block:
    """Return a file of nginx as a block."""
    stack, words = [_Block()], list[str]()
    for double, single, comment, mark, word in _NGINX_WORDS.findall(text):
        if mark == "{":
            if len(stack) > _DEEPEST:
                return _Block()
            inner = _Block(head=words)
            stack[-1].blocks.append(inner)
            stack.append(inner)
        elif mark == "}" and len(stack) > 1:
            stack.pop()
        elif mark == ";" and words:
            stack[-1].lines.append(words)
        elif not comment and not mark:
            words.append(double or single or word)
            continue
        if mark:
            words = []
    return stack[0]


_DEEPEST = 30
_NGINX_WORDS = re.compile(r'"([^"]*)"|\'([^\']*)\'|(#[^\n]*)|([{};])|([^\s{};"\']+)')


def _folders_of(block: _Block, outer: frozenset[str]) -> Iterator[Path]:
    """Yield each folder that a server or location of nginx in ``block`` serves to anybody.

    ``outer`` is what protects the block around it.
    """
    guards = block.guards(outer)
    kind = block.head[0] if block.head else ""
    listens = [line[1] for line in block.lines if line[0] == "listen" and len(line) > 1]
    if kind == "server" and listens and all(map(_is_local, listens)):
        return
    inner = [one for one in block.blocks if one.head[:1] == ["location"]]
    # A location for hidden files, such as ``~ /\\.ht``, protects no phone's.
    closed = any(one.guards(guards) and "\\." not in one.head[-1] for one in inner)
    elsewhere = any(one.head[1:] == ["/"] and one.last(*_NO_FILES) for one in inner)
    plain = kind in ("server", "location") and not (guards or closed or elsewhere or block.last(*_NO_FILES))
    folder = _folder_of(block) if plain else None
    if folder is not None:
        yield folder
    for one in block.blocks:
        yield from _folders_of(one, guards)


def _folder_of(block: _Block) -> Path | None:
    """Return the folder whose files a block of nginx serves; None without one, or if that is not plain.

    The folder of ``alias`` takes the place of the location's address, and that of ``root`` contains it.
    """
    line = block.last("root", "alias")
    folder, page = _path(line[-1]) if line else None, _path(block.head[-1])
    if folder is None or block.head[0] == "server":
        return folder
    if line[0] == "alias":
        return folder if _fit(block.head[-1], line[-1]) else None
    return folder / page.relative_to("/") if page is not None else None


_NO_FILES = ("return", "rewrite", "proxy_pass", "fastcgi_pass")
"""Directives with which nginx answers with something else than the files of the folder."""
