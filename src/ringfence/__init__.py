"""ringfence guards an Asterisk PBX.

It reads Asterisk's security events, its log, and the SIP challenges that leave the host. It combines these
reports into attempts, counts attempts in sliding windows, and bans the sender in the kernel.

The arrows show what each package passes to the next one::

    sources/ ──bytes──▶ parse/ ──SecurityEvent──▶ detect/ ──Decision──▶ bans/ ──▶ firewall/
                          ▲                         ▲                     │
                          └──── features/replay ────┘                     ▼ acknowledged by the kernel
                                                                       store/

``sources`` reads the bytes, ``parse`` makes events of them, and ``detect`` decides whom to ban. ``bans``
keeps the bans, and ``firewall`` puts them into the kernel. When the kernel has acknowledged a ban, ``store``
saves it in the database. ``features/replay`` reads old logs, and shows what the rules would have banned.

``values`` and ``errors`` hold the values and exceptions that all packages share. ``parse`` and ``detect``
have no side effects outside their objects: bytes and the time are arguments, values are results. ``guard``
builds and connects all parts. ``cli`` has the commands, which talk to the daemon over the control socket.
import-linter (in pyproject.toml) checks which package may import which.
"""

__all__ = ["__version__"]


DEFAULT_CONFIG = "/etc/ringfence/ringfence.toml"
CONFIG_VARIABLE = "RINGFENCE_CONFIG"
"""The environment variable with the path of the configuration file."""

SERVICE = ("-P", "-X", "no_debug_ranges", "-m", "ringfence.guard.service")
"""Python's arguments for the daemon.

``-P``: Python imports nothing from the current folder. ``no_debug_ranges`` saves 0.6 MB of memory.
"""


def __getattr__(name: str) -> str:
    """Return ``__version__``; raise AttributeError for any other name.

    Reading the version takes as long as a whole small command, so it is read only when it is used.
    """
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - its import is slow

        return version("ringfence")
    raise AttributeError(name)
