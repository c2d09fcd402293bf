"""Layouts of Asterisk's configuration folder, recognised by what the main files include."""

from pathlib import Path

import pytest
from tests.support.pbx_layouts import LAYOUTS, LaidOut

from ringfence.errors import SetupError
from ringfence.features.setup.texts import PLAIN, Layout, Target, layout_of

FOLDER = Path("/etc/asterisk")
CUSTOM = "#include manager_custom.conf\n"


def layout(manager: str, logger: str, closed: tuple[str, ...] = ()) -> Layout:
    """Return the layout of a folder with these two files, and with folders that setup may not change."""
    texts = {"manager.conf": manager, "logger.conf": logger}
    return layout_of(FOLDER, lambda path: texts[path.name], lambda path: path.name not in closed)


@pytest.mark.parametrize("laid_out", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_each_layout_is_recognised(laid_out: LaidOut) -> None:
    """The files of each product have its name, and both additions go where they are read."""
    package = "" if laid_out.name == "Wazo" else "manager.d"
    found = layout_of(
        FOLDER, lambda path: laid_out.files.get(path.name, ""), lambda path: path.name != package
    )

    assert found.name == laid_out.name
    assert {found.manager.file, found.logger.file} <= {*laid_out.changed}


def test_a_manager_folder_alone_is_plain() -> None:
    """Debian's manager.conf includes manager.d, and its logger.conf includes nothing."""
    found = layout('#include "manager.d/*.conf"\n', "")

    assert (found.name, found.manager, found.logger) == (
        PLAIN.name,
        Target("manager.d/ringfence.conf"),
        PLAIN.logger,
    )


@pytest.mark.parametrize("logger", ["", "#include logger.d/*.conf\n"])
def test_a_folder_that_setup_may_not_change_is_left_alone(logger: str) -> None:
    """In Debian's package root owns manager.d, but not the folder above: the new files stand beside it."""
    found = layout('#include "manager.d/*.conf"\n', logger, closed=("manager.d", "logger.d"))

    assert (found.name, found.logger) == (PLAIN.name, PLAIN.logger)
    assert found.manager == Target("ringfence.manager.conf", include="ringfence.manager.conf")


def test_an_absolute_include_counts() -> None:
    """An include may name the whole path."""
    assert layout("#include /etc/asterisk/manager.d/*.conf\n", "").manager.include == ""


@pytest.mark.parametrize(
    ("manager", "logger"), [(CUSTOM, ""), ("", "#include logger_logfiles_custom.conf\n")]
)
def test_a_product_of_which_one_file_does_not_include_is_refused(manager: str, logger: str) -> None:
    """Its generated file would be overwritten, so setup does not change it."""
    with pytest.raises(SetupError, match=r"looks like FreePBX or Issabel, but its (manager|logger)\.conf"):
        layout(manager, logger)
