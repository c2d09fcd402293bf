"""The daemon as a process: memory, log, folders, locks, systemd, and work that repeats."""

import asyncio
import ctypes
import errno
import fcntl
import gc
import linecache
import logging
import os
import pwd
import select
import socket
import stat
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager, suppress
from inspect import isawaitable
from pathlib import Path
from typing import Any, TextIO, cast

import structlog

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import Alarms
from ringfence.clock import until_tick
from ringfence.errors import FirewallBusyError, FirewallError, StoreError
from ringfence.store.owner import FileOwner, owner_of
from ringfence.values.text import printable

# -- settings of Python's garbage collector for the daemon, and the return of freed memory to the kernel
#
# By default the collector searches for reference cycles whenever 700 more objects have been created than
# freed. With 100,000 bans in memory, such a search would delay new bans. It would find nothing, because
# bans and attempts form no cycles. So the objects that exist after the start are excluded from the search,
# and new objects are searched rarely.
#
# attrs and cattrs write methods, and keep their source text for tracebacks: 1.2 MB. It is not needed. The C
# library keeps freed memory for later requests: 0.7 MB after the start. malloc_trim(3) of glibc returns this
# memory to the kernel.


_M_ARENA_MAX = -8  # of mallopt(3)
THRESHOLDS = 20_000, 20, 20
"""The arguments of ``gc.set_threshold``: how often the garbage collector searches.

The new objects are searched when there are 20,000 of them. About each 20th search includes older objects, and
about each 20th of these searches includes the oldest.
"""


def tune_collector() -> None:
    """Enable the garbage collector with high thresholds; exclude all present objects from its search."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    gc.enable()


def release_freed_memory() -> None:
    """Forget source texts, and return the pages of freed memory to the kernel if the C library is glibc."""
    linecache.clearcache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def share_memory_between_threads() -> None:
    """Make all threads use one memory pool of the C library; call it before the first thread starts.

    Otherwise each thread has a pool of its own: 0.1 MB at least, and some 40 MB for ever after it has listed
    262,000 bans. Do nothing without glibc.
    """
    limit = getattr(ctypes.CDLL(None), "mallopt", None)
    if limit is not None:
        limit(_M_ARENA_MAX, 1)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Disable the garbage collector for a block that creates very many objects without reference cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


# -- the daemon's own log: one line per event on standard error, which systemd adds to the journal
#
# An event has a stable name with dots, such as ``ban.placed``, and its data as fields. This module escapes
# every text, so that a remote party's text cannot begin a new line, and cuts it after ``LONGEST``
# characters. A secret is never logged.


LONGEST = 4_096
"""The maximum number of characters of a log field, so that a remote party's text cannot fill the log."""
_TRACEBACK = "exception"


def _escape_fields(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape every text of a log event, and write lists without brackets (``100,101``) for searches."""
    for key, value in event.items():
        text = ",".join(map(str, value)) if isinstance(value, list | tuple | set | frozenset) else value
        if text is None or isinstance(text, bool | int | float):
            continue
        event[key] = _escaped_lines(str(text)) if key == _TRACEBACK else _cut(printable(str(text)))
    return event


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text)} characters)"


def _escaped_lines(text: str) -> str:
    """Escape each line of ``text``, and indent all lines but the first."""
    return "\n  ".join(map(printable, text.split("\n")))


class LogStream:
    """The daemon's standard error as a stream that never raises and never waits long.

    A line that cannot be written is lost and counted: the device is full, the reader of the pipe has ended or
    hangs, the terminal is gone. Guarding must not depend on the log.
    """

    def __init__(self, descriptor: int = 2) -> None:
        self.lost = 0
        """The number of log lines that were lost since the process started."""
        self.error = ""
        """Why the latest line was lost; "" if it was written."""
        self.descriptor = descriptor
        self._reported = 0
        self._is_cut = False
        # The collector may run in any line, and asyncio then logs a lost task in the same thread.
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        """Write ``text``, whole lines; lose and count them if that fails. Return the length of ``text``."""
        line = text.encode("utf-8", "backslashreplace")
        with self._lock:
            try:
                if self._is_cut and line:  # half a line was written before: end it
                    line = b"\n" + line
                self._write(line)
            except OSError as error:
                self.lost += 1
                self.error = f"the log cannot be written, and its lines are lost: {error.strerror}"
            else:
                self.error = ""
        return len(text)

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""

    def retry(self) -> None:
        """If log lines were lost, try to log how many. So the alarm clears when the log works again."""
        if self.lost > self._reported:
            lost = self.lost
            structlog.get_logger().warning("log.lines_lost", number=lost - self._reported)
            self.lost = lost  # the line above does not count, even if it was lost too
            if not self.error:
                self._reported = lost

    def _write(self, line: bytes) -> None:
        """Write ``line`` in pieces so small that a descriptor that is ready takes each without waiting.

        Raise OSError: BlockingIOError if the descriptor is not ready in time.
        """
        patience = 0 if self.error else _LOG_PATIENCE
        piece = _TERMINAL_PIECE if os.isatty(self.descriptor) else _PIPE_PIECE
        at = 0
        try:
            while at < len(line):
                ready = select.poll()
                ready.register(self.descriptor, select.POLLOUT)
                if not ready.poll(patience):
                    raise BlockingIOError(errno.EAGAIN, "its reader hangs")
                at += os.write(self.descriptor, line[at : at + piece])
        finally:
            if at:
                self._is_cut = line[at - 1 : at] != b"\n"


_LOG_PATIENCE = 50
"""Milliseconds that each piece of a line waits for the log's reader; none while lines are lost."""
_PIPE_PIECE, _TERMINAL_PIECE = 4_096, 256
"""The bytes that a pipe or socket, and a terminal, take at once if the kernel reports it as writable.

See PIPE_BUF in pipe(7), and WAKEUP_CHARS in the kernel's drivers/tty/n_tty.c.
"""

LOG = LogStream()
"""The stream to which this process logs: its standard error."""


class _Escaped(logging.Formatter):
    """A formatter that escapes the log records of libraries."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the log record of a library as escaped text."""
        return _escaped_lines(super().format(record))


def configure_logging(level: int = logging.INFO) -> None:
    """Set up logging for this process: formatted for people on a terminal, as ``key=value`` elsewhere.

    Lower levels than ``level`` are not logged. Commands that print their result use ``logging.CRITICAL``.
    """
    while sys.stderr is None and os.open(os.devnull, os.O_RDWR) < LOG.descriptor:
        pass  # standard error is closed: otherwise a later file gets its number, and the log is written to it
    terminal = sys.stderr is not None and sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _escape_fields,
            structlog.dev.ConsoleRenderer()
            if terminal
            else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", LOG)),
        cache_logger_on_first_use=False,
    )
    # Libraries write to Python's log: only their errors are logged. Errors of panoramisk are left out, too,
    # because they could contain the text of an AMI action.
    handler = logging.StreamHandler(LOG)
    handler.setFormatter(_Escaped("%(name)s: %(message)s"))
    logging.basicConfig(level=logging.ERROR, handlers=[handler])
    logging.getLogger("panoramisk").setLevel(logging.CRITICAL)


# -- the user of ringfence's systemd unit: the folders that it needs, and the files that it may read


USER = "ringfence"
"""The name of the user that the systemd unit runs as."""


def make_folder(folder: Path) -> None:
    """Create ``folder`` if it is missing. Normally systemd creates it for the unit.

    In a folder of root, the unit's user becomes its owner, if there is such a user. In a folder of another
    user, root creates it with the rights of this user. A failure is not reported here, because the code that
    writes into the folder reports it.
    """
    with suppress(OSError, StoreError):
        owner = owner_of(folder)
        with owner.acting():
            folder.mkdir(mode=0o750)
        with suppress(KeyError):
            user = pwd.getpwnam(USER)
            if owner.uid == os.geteuid():
                opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    os.fchown(opened, user.pw_uid, user.pw_gid)
                finally:
                    os.close(opened)


def closed_to_user(file: Path) -> Path | None:
    """Return the first folder above a file, or the file, that owners and modes close to the unit's user.

    Return None if this user may read the file, or if that cannot be determined.
    """
    try:
        user = pwd.getpwnam(USER)
        groups = {user.pw_gid, *os.getgrouplist(USER, user.pw_gid)}
        for folder in reversed(Path(os.path.realpath(file)).parents):
            if not _grants(folder, user.pw_uid, groups, stat.S_IXOTH):
                return folder
        return None if _grants(file, user.pw_uid, groups, stat.S_IROTH) else file
    except (KeyError, OSError):
        return None


def _grants(path: Path, user: int, groups: set[int], right: int) -> bool:
    found = path.stat()
    shift = 6 if found.st_uid == user else 3 if found.st_gid in groups else 0
    return user == 0 or bool(found.st_mode >> shift & right)


# -- the lock that allows only one ringfence in each network namespace
#
# The kernel's sets have fixed names, so two daemons would undo each other's work. The lock (``flock``) is
# on a file that only root and the service user can open. The file's name contains the inode number of the
# network namespace. The kernel releases the lock when the process ends for any reason.
#
# There is a lock in the runtime folder (``/run/ringfence``), so that two daemons with different
# configurations exclude each other. If the control socket is in another folder, there is a second lock. It
# is enough for a process that cannot write to /run.


RUNTIME_FOLDER = Path("/run/ringfence")
_NAMESPACE = Path("/proc/thread-self/ns/net")
_WRITABLE_BY_OTHERS = 0o022
_TRIES = 20


@contextmanager
def claim_sets(folder: Path) -> Iterator[None]:
    """Hold the lock for ringfence's kernel sets in this network namespace until the block ends.

    ``folder`` is the folder of the control socket. Raise FirewallBusyError if another process has the lock,
    FirewallError if the lock can be put into neither folder.
    """
    folders = dict.fromkeys((RUNTIME_FOLDER, folder))
    refused = []
    with ExitStack() as stack:
        for one in folders:
            make_folder(one)
            try:
                stack.enter_context(_locked(one))
            except OSError as error:
                refused.append(f"{one}: {error.strerror}")
        if len(refused) == len(folders):
            raise FirewallError(
                f"the sets cannot be claimed: {'; '.join(refused)}; fix: give {RUNTIME_FOLDER} to the "
                "user that runs ringfence, mode 0750"
            )
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock in ``folder`` until the block ends.

    Raise OSError if the folder cannot be used, or if other users may write there. Raise FirewallBusyError if
    another process has the lock.
    """
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = os.fstat(directory)
        if found.st_mode & _WRITABLE_BY_OTHERS:
            raise PermissionError(0, "other users may write there")
        owner = FileOwner(found.st_uid, found.st_gid)
        name = f"sets-{_NAMESPACE.stat().st_ino}.lock"
        with owner.acting():
            descriptor = _lock(directory, name, folder)
        try:
            yield
        finally:
            # The file is removed while this process holds the lock. Another process that has opened the file
            # notices the removal, and tries again.
            with suppress(OSError), owner.acting():
                if _is_at(descriptor, directory, name):
                    os.unlink(name, dir_fd=directory)
            os.close(descriptor)
    finally:
        os.close(directory)


def _lock(directory: int, name: str, folder: Path) -> int:
    """Lock the file ``name`` in the open folder ``directory``, and return its descriptor.

    Raise FirewallBusyError if another process has the lock; the message names ``folder``, the folder's path.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    for _ in range(_TRIES):
        descriptor = os.open(name, flags, 0o600, dir_fd=directory)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, directory, name):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise FirewallBusyError(
                f"another ringfence guards this network namespace (it locks {folder / name}, see `lslocks`); "
                "stop it first: systemctl stop ringfence"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise FirewallBusyError(
        f"other processes of ringfence come and go ({folder / name}); try again when they have ended"
    )


def _is_at(descriptor: int, directory: int, name: str) -> bool:
    """Whether the file ``name`` in the open folder ``directory`` is still the file open as ``descriptor``."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(name, dir_fd=directory, follow_symlinks=False))
    except FileNotFoundError:
        return False


# -- states for systemd: sd_notify(3) and the watchdog, without a library
#
# A state is one datagram with lines ``NAME=value``, sent to the socket that the environment variable
# ``NOTIFY_SOCKET`` names. If the variable is not set (in a shell or a container), nothing is sent.


def report_state(state: str, environ: Mapping[str, str] = os.environ, flags: int = 0) -> None:
    """Send a state (``READY=1``) to systemd, with ``flags`` of send(2). Raise OSError if sending fails.

    Do nothing if ``environ`` lacks NOTIFY_SOCKET.
    """
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto(state.encode(), flags, address)


_READY_AGAIN = 1.0
"""Seconds between two tries to report to systemd that the daemon is ready."""


async def report_ready(environ: Mapping[str, str] = os.environ) -> None:
    """Report to systemd that the daemon is ready; try again each second until systemd has the report.

    A daemon that cannot report guards nevertheless. systemd ends it when its ``TimeoutStartSec=`` is over.
    """
    failed = False
    while True:
        try:
            report_state("READY=1", environ, socket.MSG_DONTWAIT)
        except OSError as error:
            if not failed:
                text = f"cannot report to systemd that the daemon is ready: {error.strerror}; it tries again"
                structlog.get_logger().error("systemd.unreachable", error=text)
            failed = True
            await asyncio.sleep(_READY_AGAIN)
        else:
            return


def report_stopping(environ: Mapping[str, str] = os.environ) -> None:
    """Report to systemd that the daemon is stopping; errors are ignored."""
    with suppress(OSError):
        report_state("STOPPING=1", environ, socket.MSG_DONTWAIT)


def feed_watchdog(environ: Mapping[str, str] = os.environ) -> None:
    """Report to systemd's watchdog that the daemon is alive, without waiting. Errors are ignored.

    If the socket's buffer is full, this report is lost. The next call sends another one.
    """
    with suppress(OSError):
        report_state("WATCHDOG=1", environ, socket.MSG_DONTWAIT)


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float | None:
    """Return how many seconds to wait between calls of :func:`feed_watchdog`: half of what systemd allows.

    Return None if systemd has set no watchdog for this process.
    """
    asked = environ.get("WATCHDOG_USEC", "")
    meant = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(asked) / 2_000_000 if asked.isdecimal() and int(asked) and meant else None


# -- periodic work: a failure activates an alarm, and the work is tried again; it never ends the daemon


async def every(
    seconds: float, name: str, action: Callable[[], object | Awaitable[object]], alarms: Alarms
) -> None:
    """Call ``action`` every ``seconds``, at the moments of :func:`until_tick`, until cancelled.

    ``name`` is the subject of the alarm if ``action`` raises an exception. The alarm clears when the action
    succeeds again.
    """
    log = structlog.get_logger()
    failed: bool | None = None  # unknown: an earlier run of the daemon may have activated the alarm
    while True:
        await asyncio.sleep(until_tick(seconds))
        try:
            result = action()
            if isawaitable(result):
                await result
        except Exception as error:
            if not failed:  # once, and not every second
                log.exception("task.failed", task=name)
            failed = True
            text = f"{type(error).__name__}: {error}"
            alarms.activate(AlarmCode.TASK_FAILED, name, text)
        else:
            if failed:
                log.info("task.works", task=name)
            if failed is not False:
                alarms.clear(AlarmCode.TASK_FAILED, name)
            failed = False
