"""ringfence guards an Asterisk PBX.

What a guest of the telephone system does wrong, Asterisk says; ringfence listens, folds what it hears
into attempts, counts them in exact sliding windows, and bans the sender in the kernel.

The rooms, and the one direction in which they may import each other::

    sources/ ────bytes───▶ parse/ ──SecurityEvent──▶ detect/ ──Decision──▶ bans/ ──▶ firewall/
                             ▲                         ▲ never banned        │ confirmed    ▲ control socket
                             └───────── replay/ ───────┤                     ▼              │
                                                 host/, lists/             store           cli/

``model`` and ``errors`` hold the values and the exceptions that cross rooms. ``parse`` and ``detect`` are
pure: bytes and the time come in as arguments, values go out. ``daemon`` wires the rooms together, ``cli``
talks to it. A test (import-linter, configured in pyproject.toml) keeps the directions.
"""

__all__ = ["__version__"]


DEFAULT_CONFIG = "/etc/ringfence/ringfence.toml"


def __getattr__(name: str) -> str:
    """Read the version only when somebody asks: the metadata look-up costs as much as a small command."""
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - to load it costs more than that

        return version("ringfence")
    raise AttributeError(name)
