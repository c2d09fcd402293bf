"""How a process of ringfence's ends: its exit code, and what it says on standard error before."""

from enum import IntEnum

from ringfence.errors import ConfigError, DaemonUnreachableError, RingfenceError


class Exit(IntEnum):
    """What an exit code means."""

    DONE = 0
    PROBLEM = 1
    USAGE = 2
    UNREACHABLE = 3


def explained(error: RingfenceError) -> tuple[list[str], Exit]:
    """Give the lines to tell a person, and the exit code."""
    if isinstance(error, ConfigError):
        return [f"{error.where}:", *(f"  {problem}" for problem in error.problems)], Exit.USAGE
    unreachable = isinstance(error, DaemonUnreachableError)
    return [str(error)], Exit.UNREACHABLE if unreachable else Exit.PROBLEM
