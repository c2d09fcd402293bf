"""The files into which setup writes its manager user and its log channel.

They depend on the layout of Asterisk's configuration folder. The layout is recognised by the files that
``manager.conf`` and ``logger.conf`` (the main files) include, because Asterisk reads exactly these. The name
of a product would not be enough: its files may have been changed, or be those of an older release. Files that
a product generates are never changed.
"""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from attrs import frozen

from ringfence.errors import SetupError
from ringfence.setup.texts import includes

MANAGER, LOGGER = "manager.conf", "logger.conf"


@frozen
class Target:
    """A file to which setup adds a text; ``file`` is its path in Asterisk's configuration folder.

    ``own``: the file has only this text. ``include`` is the name that the main file must include so that
    Asterisk reads the file; "" if the main file includes it already.
    """

    file: str
    own: bool = True
    include: str = ""


@frozen
class Layout:
    """A layout of the configuration folder: its name, and the files for the manager user and the log channel.

    ``generated``: another program writes the main files, so setup must not change them.
    """

    name: str
    manager: Target
    logger: Target
    generated: bool = False


@frozen
class _Kind:
    """A PBX product (such as FreePBX) and its layout.

    A configuration folder belongs to the product if its manager.conf includes the file that ``manager``
    names, and its logger.conf the file that ``logger`` names. ``generated``: see :class:`Layout`.
    """

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
    """Return the layout of a configuration folder; ``read`` returns the text of a file, "" without a file.

    A product is recognised if both main files include its file. One of them is not enough: the
    ``manager.conf`` of Debian includes ``manager.d``, as Wazo's does. A folder of no known product is that of
    a plain Asterisk. If only one of its main files includes Wazo's file, setup uses this file as the target.

    Raise SetupError if only one main file includes the file of a product that writes the main files itself.
    Setup would have to change the other main file, and the product would overwrite this change.
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
