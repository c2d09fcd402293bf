"""The program nft: found, run in one transaction, and its errors."""

from pathlib import Path

import pytest
from tests.support.netns import run

from ringfence.errors import FirewallError, FirewallUnsupportedError
from ringfence.firewall import requirements
from ringfence.firewall.nftables.installation import find_nft, run_nft


def script(folder: Path, text: str) -> str:
    """Make a program with this shell code."""
    program = folder / "nft"
    program.write_text(f"#!/bin/sh\n{text}\n", encoding="ascii")
    program.chmod(0o755)
    return str(program)


def test_a_missing_tool_is_named_with_its_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without nft the error names the package."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(requirements, "_FOLDERS", ())

    with pytest.raises(FirewallUnsupportedError, match=r"^nft is not installed; .*apt-get install nftables$"):
        find_nft()


def test_the_tool_is_found_without_sbin_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The program is found although PATH lacks the sbin folders, as for ordinary users."""
    script(tmp_path, "true")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(requirements, "_FOLDERS", (str(tmp_path),))

    assert find_nft() == str(tmp_path / "nft")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo 'a: Error: why'; echo beneath; echo '  ^^^'; exit 3", r"failed \(3\): a: Error: why beneath$"),
        (
            "echo 'x: Error: File exists'; echo 'set a'; exit 1",
            r"set a; .*fix: `ringfence off`, or `nft delete",
        ),
        ("exec sleep 5", "did not end within"),
        ("exit 1", "no reason"),
    ],
)
def test_a_failing_tool_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    """A tool that fails or hangs is a FirewallError with its first output, within the time limit."""
    if "sleep" in text:
        monkeypatch.setattr(requirements, "_TIMEOUT", 0.3)

    with pytest.raises(FirewallError, match=message):
        run_nft(script(tmp_path, text), "text")


def test_a_tool_that_cannot_be_run_is_an_error(tmp_path: Path) -> None:
    """A file that cannot be executed is an error with the fix."""
    with pytest.raises(FirewallUnsupportedError, match=r"cannot be run: .*apt-get install nftables"):
        run_nft(str(tmp_path / "nft"), "text")


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_a_text_is_one_transaction() -> None:
    """A text is carried out completely or not at all."""
    run_nft(find_nft(), "add table inet one\nadd table inet two\n")
    with pytest.raises(FirewallError, match="Error"):
        run_nft(find_nft(), "add table inet three\nadd chain inet absent c\n")

    assert run("nft", "list", "tables").splitlines() == ["table inet one", "table inet two"]
