"""The platform's nft: found, run in one transaction, and what it complains of."""

from pathlib import Path

import pytest
from tests.support.netns import run

from ringfence.errors import FirewallError, FirewallUnsupportedError
from ringfence.firewall import nft_tool
from ringfence.firewall.nft_tool import find_nft, run_nft


def script(folder: Path, text: str) -> str:
    """Make a tool that does this."""
    tool = folder / "nft"
    tool.write_text(f"#!/bin/sh\n{text}\n", encoding="ascii")
    tool.chmod(0o755)
    return str(tool)


def test_a_missing_tool_is_named_with_its_mend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without nft the error names the package."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(nft_tool, "_FOLDERS", ())

    with pytest.raises(FirewallUnsupportedError, match=r"^nft is not installed; .*apt-get install nftables$"):
        find_nft()


def test_the_tool_is_found_without_sbin_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A PATH without the sbin folders, as users have it, is enough."""
    script(tmp_path, "true")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(nft_tool, "_FOLDERS", (str(tmp_path),))

    assert find_nft() == str(tmp_path / "nft")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo 'a: Error: why'; echo beneath; echo '  ^^^'; exit 3", r"failed \(3\): a: Error: why beneath$"),
        (
            "echo 'x: Error: File exists'; echo 'set a'; exit 1",
            r"set a; .*mend: `ringfence off`, or `nft delete",
        ),
        ("exec sleep 5", "did not end within"),
        ("exit 1", "no reason"),
    ],
)
def test_a_failing_tool_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    """A tool that fails or hangs is a FirewallError with what it said first, and not waited for for ever."""
    monkeypatch.setattr(nft_tool, "_TIMEOUT", 0.3)

    with pytest.raises(FirewallError, match=message):
        run_nft(script(tmp_path, text), "text")


def test_a_tool_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    """What is there and cannot be run is an error with the mend."""
    with pytest.raises(FirewallUnsupportedError, match=r"cannot be run: .*apt-get install nftables"):
        run_nft(str(tmp_path / "nft"), "text")


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_a_text_is_one_transaction() -> None:
    """Either all of a text is carried out, or nothing of it."""
    run_nft(find_nft(), "add table inet one\nadd table inet two\n")
    with pytest.raises(FirewallError, match="Error"):
        run_nft(find_nft(), "add table inet three\nadd chain inet absent c\n")

    assert run("nft", "list", "tables").splitlines() == ["table inet one", "table inet two"]
