"""Where a manager user and a log channel go, by the layout of Asterisk's configuration folder.

The layout is recognised by what ``manager.conf`` and ``logger.conf`` include, because Asterisk reads exactly
that. The name of a product would not be enough: its files may have been changed, or be those of an older
release. Files that a product generates are never changed.
"""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from attrs import frozen

from ringfence.errors import SetupError
from ringfence.setup.conf_text import includes

MANAGER, LOGGER = "manager.conf", "logger.conf"


@frozen
class Target:
    """A file for an addition. ``own`` is whether it has nothing else; ``include``: its line in the main file.

    ``include`` is "" if the main file includes it already.
    """

    file: str
    own: bool = True
    include: str = ""


@frozen
class Layout:
    """A layout with its name for people. ``generated``: another program writes the main files."""

    name: str
    manager: Target
    logger: Target
    generated: bool = False


@frozen
class _Kind:
    """A row of the table: files for additions, each with the name that an include must match."""

    name: str
    manager: Target
    logger: Target
    generated: bool


PLAIN = Layout(
    "plain Asterisk",
    Target("manager.d/ringfence.conf", include="manager.d/ringfence.conf"),
    Target("ringfence.logger.conf", include="ringfence.logger.conf"),
)
_KINDS = (
    _Kind(
        "VitalPBX",
        Target("vitalpbx/manager__60-ringfence.conf"),
        Target("vitalpbx/logger__60-ringfence.conf"),
        generated=True,
    ),
    _Kind(
        "FreePBX or Issabel",
        Target("manager_custom.conf", own=False),
        Target("logger_logfiles_custom.conf", own=False),
        generated=True,
    ),
    _Kind(
        "Wazo",
        Target("manager.d/ringfence.conf"),
        Target("logger.d/ringfence.conf"),
        generated=False,
    ),
)


def layout_of(folder: Path, read: Callable[[Path], str]) -> Layout:
    """Return the layout of a configuration folder; ``read`` returns the text of a file, "" if there is none.

    A Debian's ``manager.conf`` includes ``manager.d`` too, so a layout counts if its log channel is included.
    If a product includes only one of the two files, raise SetupError: the other one would be overwritten.
    """
    manager, logger = (includes(read(folder / name)) for name in (MANAGER, LOGGER))
    for kind in _KINDS:
        users, channels = (
            _is_included(folder, kind.manager, manager),
            _is_included(folder, kind.logger, logger),
        )
        if users and channels:
            return Layout(kind.name, kind.manager, kind.logger, kind.generated)
        if kind.generated and (users or channels):
            file, main = (kind.logger, LOGGER) if users else (kind.manager, MANAGER)
            raise SetupError(
                f"{folder} looks like {kind.name}, but its {main} does not include {file.file}; fix: update "
                "the product, or change the files by hand, see docs/install.md"
            )
    wazo = _KINDS[-1]
    return Layout(
        PLAIN.name,
        wazo.manager if _is_included(folder, wazo.manager, manager) else PLAIN.manager,
        wazo.logger if _is_included(folder, wazo.logger, logger) else PLAIN.logger,
    )


def _is_included(folder: Path, target: Target, names: Sequence[str]) -> bool:
    path = str(folder / target.file)
    return any(fnmatchcase(path, str(folder / name)) for name in names)
