"""Which boot of this host it is."""

from pathlib import Path

import pytest

from ringfence.host.boot import VARIABLE, boot_id

ID = "0f6e4d3c2b1a49788695a4b3c2d1e0ff"
DASHED = "0f6e4d3c-2b1a-4978-8695-a4b3c2d1e0ff\n"


def test_the_kernel_has_a_name_for_this_boot() -> None:
    """It is the same as long as the host is up."""
    assert boot_id() == boot_id()
    assert len(boot_id()) == 32


@pytest.mark.parametrize("given", [ID, DASHED], ids=["as systemd writes it", "as the kernel writes it"])
def test_where_the_file_is_hidden_the_environment_has_it(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both forms are one name."""
    monkeypatch.setenv(VARIABLE, given)
    assert boot_id(tmp_path / "none") == ID
    (tmp_path / "boot_id").write_text(DASHED)
    monkeypatch.setenv(VARIABLE, "f" * 32)
    assert boot_id(tmp_path / "boot_id") == ID


@pytest.mark.parametrize("given", [None, "", "%b", ID[:-1]], ids=["none", "empty", "not replaced", "short"])
def test_what_is_not_known_is_nothing(
    given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody takes two boots for one because both have no name: the caller sees that there is none."""
    monkeypatch.delenv(VARIABLE, raising=False)
    if given is not None:
        monkeypatch.setenv(VARIABLE, given)
    assert boot_id(tmp_path / "none") == ""
