"""All exceptions that ringfence raises on purpose.

They have a common base class, so that callers distinguish errors by type and never by text. Each message is
written for an administrator: what failed, and how to fix it. No message contains a secret.
"""

import sys
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


class RingfenceError(Exception):
    """The base class of all exceptions that ringfence raises on purpose.

    If an exception of any other class ends a program, ringfence has a defect.
    """


class ConfigError(RingfenceError):
    """The configuration cannot be used.

    ``where`` is the path of the configuration. ``problems`` has one line for each problem. A line about a key
    begins with the path of the key, or with the environment variable that sets the key.
    """

    def __init__(self, where: str, problems: list[str]) -> None:
        super().__init__(f"{where}: " + "; ".join(problems))
        self.where = where
        self.problems = problems


class SourceError(RingfenceError):
    """A source (an AMI connection, a log file) cannot be read."""


class FirewallError(RingfenceError):
    """The firewall cannot be read or changed, for example because the kernel refused a request."""


class FirewallUnsupportedError(FirewallError):
    """This host lacks something that the firewall backend needs. The message names it, with the fix."""


class FirewallToolError(FirewallError):
    """A program of the firewall was not started or did not end, or another one holds its lock.

    The kernel has refused nothing. The same may succeed later.
    """


class FirewallPermissionError(FirewallError):
    """The process lacks capabilities, such as CAP_NET_ADMIN. The message names them, with the fix.

    ``what`` begins the message, and ``lacking`` are the capabilities. The fix is how to grant them: by
    systemd, by hand, and to a container.
    """

    def __init__(self, what: str, *lacking: str) -> None:
        short = [name.removeprefix("CAP_") for name in lacking]
        unit = "its unit" if "CAP_NET_RAW" not in lacking else "its unit with contrib/systemd/iptables.conf"
        docker = " ".join(f"--cap-add={name}" for name in short)
        lxc = " and ".join(name.lower() for name in short)
        super().__init__(
            f"{what}; fix: start ringfence by {unit} (systemctl start ringfence) or as root; "
            f"in Docker: docker run {docker}; in LXC: remove {lxc} from lxc.cap.drop"
        )


class FirewallBusyError(FirewallError):
    """Another ringfence already owns the sets of this network namespace."""


class FirewallIncompleteError(FirewallError):
    """The bans changed while they were listed, so the list may lack some bans."""


class SetFullError(FirewallError):
    """A set of the firewall has no room for another element."""


class ProbeError(FirewallError):
    """The rules are in place, but they did not drop a test packet from a banned address."""


class StartError(RingfenceError):
    """The kernel refuses another thread, process or event loop."""


class HostError(RingfenceError):
    """A property of this host, such as its own addresses, cannot be read."""


class ListError(RingfenceError):
    """A list of networks, or a database of networks, cannot be read, written or used."""


class SetupError(RingfenceError):
    """Files or services of this host cannot be changed. The message names the reason and the fix."""


class StoreError(RingfenceError):
    """The database cannot be read or written."""


class StoreBusyError(StoreError):
    """Another ringfence already owns this database."""


class StoreDamagedError(StoreError):
    """The content of the database is damaged."""


class StoreNewerError(StoreError):
    """The database was written by a later version of ringfence."""


class NotRecordedError(StoreError):
    """A change is in force, but the database could not record it, so the next start may undo it."""


class ControlError(RingfenceError):
    """The daemon refused a request, or cannot open its control socket. The message gives the reason."""


class DaemonUnreachableError(ControlError):
    """No daemon answers on the control socket, or its answer cannot be read."""


class NoAccessError(DaemonUnreachableError):
    """This process cannot connect to the control socket. A daemon may run."""


class NoAnswerError(DaemonUnreachableError):
    """A request was sent, but its answer did not come. The daemon may have carried it out."""


class HangingError(NoAnswerError):
    """A daemon runs, but does not answer at all: it is stopped, or waits for something without end.

    ``state`` is the part of the message about the daemon. ``request`` is a sentence about what becomes of the
    request. ``is_known``: this program has had this error before.
    """

    def __init__(self, state: str, request: str, *, is_known: bool = False) -> None:
        super().__init__(f"{state} {request}")
        self.state = state
        self.is_known = is_known


class OutputError(RingfenceError):
    """The output of a command cannot be written, for example because it is a file on a full disk."""


class WebError(RingfenceError):
    """A page cannot be served or written, or does not let a read-only user change anything."""


class Exit(IntEnum):
    """The exit codes of commands."""

    DONE = 0
    PROBLEM = 1  # a problem was found, or the daemon or the kernel refused
    USAGE = 2  # the command line or the configuration has mistakes
    UNREACHABLE = 3  # the daemon does not answer; the change may be recorded
    NOT_RECORDED = 4  # the change is in force, but the database could not record it


def error_lines(error: RingfenceError) -> tuple[list[str], Exit]:
    """Return the lines to print for an error, and the exit code of the command."""
    if isinstance(error, ConfigError):
        return [f"{error.where}:", *(f"  {problem}" for problem in error.problems)], Exit.USAGE
    if isinstance(error, NotRecordedError):
        return [str(error)], Exit.NOT_RECORDED
    unreachable = isinstance(error, DaemonUnreachableError)
    return [str(error)], Exit.UNREACHABLE if unreachable else Exit.PROBLEM


def report_defect(kind: type[BaseException], error: BaseException, trace: "TracebackType | None") -> None:
    """Print a traceback to stderr. ``sys.excepthook`` calls this for an exception that nothing has caught.

    Every line is escaped, because the message of the exception may contain text of an attacker. All lines but
    the first are indented.
    """
    import traceback  # noqa: PLC0415 - loaded when it is needed

    from ringfence.values.text import printable  # noqa: PLC0415 - loaded when it is needed

    text = "".join(traceback.format_exception(kind, error, trace)).rstrip("\n")
    sys.stderr.write("\n  ".join(map(printable, text.split("\n"))) + "\n")
