"""Everything that ringfence raises on purpose.

One tree, so that a caller decides by type and never by text. Each error's message is written for an
administrator: what is wrong, and what mends it. No message ever holds a secret.
"""


class RingfenceError(Exception):
    """The root: whatever is not below it and escapes is a defect of ringfence."""


class ConfigError(RingfenceError):
    """The configuration cannot be used.

    ``problems`` holds every problem found, one line each, beginning with its key path.
    """

    def __init__(self, where: str, problems: list[str]) -> None:
        super().__init__(f"{where}: " + "; ".join(problems))
        self.where = where
        self.problems = problems


class SourceError(RingfenceError):
    """A witness (an AMI connection, later a log file) cannot be heard."""


class FirewallError(RingfenceError):
    """The kernel did not do what it was asked."""


class FirewallUnsupportedError(FirewallError):
    """This host lacks something that the backend needs; the message names it and the mend."""


class FirewallPermissionError(FirewallError):
    """The process lacks a capability; the message names it and the mend."""


class FirewallBusyError(FirewallError):
    """Another ringfence already owns the sets of this network namespace."""


class SetFullError(FirewallError):
    """A set has no room for another element."""


class ProbeError(FirewallError):
    """The rules are in, but a test packet of a banned address got through."""


class HostError(RingfenceError):
    """What this host is (its own addresses) cannot be read."""


class ListError(RingfenceError):
    """A list of networks, or a database of addresses, cannot be used."""


class StoreError(RingfenceError):
    """The database cannot be read or written."""


class StoreBusyError(StoreError):
    """Another ringfence already owns this database."""


class StoreNewerError(StoreError):
    """The database was written by a later ringfence."""


class ControlError(RingfenceError):
    """A command was refused by the daemon; the message says why."""


class DaemonUnreachableError(ControlError):
    """No daemon listens on the control socket."""
