"""Whom fail2ban has banned, from its SQLite database, which is only read.

Since 0.11 table ``bips`` has the last ban of each address in each jail, and is what fail2ban itself restores
from; ``bans`` is the history. Before, there is only ``bans``, and it does not say how long a ban is: that is
the jail's ``bantime``, as it is where an upgrade has written -2. A ``bantime`` of -1 never ends.

What of a damaged database can be read is used: rows are read in the order in which they lie in the file, past
every index, and where ``bips`` breaks off, the history stands in.
"""

import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from ipaddress import ip_network
from math import inf, isfinite
from pathlib import Path
from urllib.parse import quote

from attrs import define, field, frozen

from ringfence.errors import StoreError
from ringfence.model import Network, network_from, printable

PATIENCE = 5.0
"""How long fail2ban may hold its lock on the database (seconds)."""

_UNKNOWN = -2
_SELECT = "SELECT jail, ip, timeofban, {length} FROM {table} NOT INDEXED"
_NEEDED = {"jail", "ip", "timeofban"}


@frozen
class Running:
    """A ban of fail2ban's that has time left. One that never ends expires at infinity."""

    network: Network
    jail: str
    expires: float


@frozen
class Found:
    """Each network that is banned once, with its longest ban, the first to end first; and what went wrong."""

    bans: tuple[Running, ...]
    problems: tuple[str, ...]


def read_bans(path: Path, bantimes: Mapping[str, float], now: float) -> Found:
    """Read the bans of some jails that are running at ``now``.

    ``bantimes`` has the jails, and how long their bans are where the database does not know (below 0: for
    ever). Raises StoreError where there is no database, or nothing of it can be read.
    """
    gathered = _Gathered(bantimes, now)
    broken = []
    with _errors(path), closing(_opened(path)) as connection:
        tables = _tables(connection)
        for table, length in tables:
            try:
                for row in connection.execute(_SELECT.format(length=length, table=table)):
                    gathered.take(*row)
            except sqlite3.Error as error:
                broken.append(f"{path}: table {table} cannot be read to its end: {error}")
            else:
                break
    if not tables:
        raise StoreError(f"{path}: holds no bans; is that fail2ban's database?")
    if len(broken) == len(tables) and not gathered.bans:
        raise StoreError(broken[0])
    bans = sorted(gathered.bans.values(), key=lambda ban: (ban.expires, str(ban.network)))
    if gathered.malformed:
        broken.append(f"{path}: rows that make no sense: {gathered.malformed}, such as {gathered.example}")
    return Found(tuple(bans), tuple(broken))


@define
class _Gathered:
    """The running bans so far, and how many rows there were that are none."""

    bantimes: Mapping[str, float]
    now: float
    bans: dict[Network, Running] = field(factory=dict)
    malformed: int = 0
    example: str = ""

    def take(self, jail: object, ip: object, began: object, length: object) -> None:
        """Judge a row; SQLite keeps whatever was put into a column."""
        if not isinstance(jail, str) or jail not in self.bantimes:
            return
        length = self.bantimes[jail] if length == _UNKNOWN else length
        try:
            network, expires = _network(ip), _end(began, length)
        except ValueError:
            self.malformed += 1
            self.example = self.example or printable(f"{ip!r:.60}, {began!r:.60}, {length!r:.60}")
            return
        known = self.bans.get(network)
        if expires > self.now and (known is None or known.expires < expires):
            self.bans[network] = Running(network, jail, expires)


def _network(ip: object) -> Network:
    if not isinstance(ip, str):
        raise ValueError("no text")  # noqa: TRY004 - a wrong type in a row is a wrong value
    return network_from(str(ip_network(ip, strict=False)))


def _end(began: object, length: object) -> float:
    if not isinstance(began, int | float) or not isinstance(length, int | float) or not isfinite(began):
        raise ValueError("no times")
    return inf if length < 0 else began + length


def _tables(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Name the tables with bans, the best first, and what in each says how long a ban is."""
    found = []
    for table in ("bips", "bans"):
        columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        if columns >= _NEEDED:
            found.append((table, "bantime" if "bantime" in columns else str(_UNKNOWN)))
    return found


def _opened(path: Path) -> sqlite3.Connection:
    if not stat.S_ISREG(path.stat().st_mode):
        raise StoreError(f"{path}: is not a file")
    with path.open("rb"):
        pass  # SQLite would not say why it may not
    uri = f"file:{quote(os.fsencode(path.absolute()))}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=PATIENCE, isolation_level=None)
    connection.text_factory = lambda data: data.decode("utf-8", "backslashreplace")
    return connection


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        mend = "name it with --database, or see dbfile in fail2ban.conf"
        raise StoreError(f"{path}: there is no such database; {mend}") from None
    except (OSError, ValueError) as error:  # ValueError: no path can be so
        raise StoreError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except sqlite3.Error as error:
        raise StoreError(f"{path}: cannot be read: {error}") from None
