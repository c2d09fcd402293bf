"""What ``check`` finds, as a line."""

import pytest

from ringfence.cli.findings import Finding


@pytest.mark.parametrize(
    ("finding", "line"),
    [
        (Finding(right=True, what="ipset"), "ok  ipset"),
        (Finding(right=False, what="daemon", detail="start it"), "NO  daemon: start it"),
        (Finding(right=None, what="log", detail="is not seen"), "--  log: is not seen"),
    ],
)
def test_a_finding_is_a_line(finding: Finding, line: str) -> None:
    """Right, wrong and neither have a mark each, and what there is to say stands behind."""
    assert finding.line == line


def test_a_finding_for_scripts() -> None:
    """The same in JSON: true, false, or null for what is neither."""
    finding = Finding(right=None, what="log", detail="is not seen")

    assert finding.as_json == {"right": None, "what": "log", "detail": "is not seen"}
