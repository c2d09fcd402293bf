"""Findings of ``check`` as lines and objects."""

import pytest

from ringfence.findings import Finding


@pytest.mark.parametrize(
    ("finding", "line"),
    [
        (Finding(right=True, what="ipset"), "ok  ipset"),
        (Finding(right=False, what="daemon", detail="start it"), "NO  daemon: start it"),
        (Finding(right=None, what="log", detail="is not seen"), "--  log: is not seen"),
    ],
)
def test_a_finding_is_a_line(finding: Finding, line: str) -> None:
    """Each of the three states has a mark, followed by the text."""
    assert finding.line == line


def test_a_finding_for_scripts() -> None:
    """JSON has the same: true, false, or null for neither."""
    finding = Finding(right=None, what="log", detail="is not seen")

    assert finding.as_json == {"right": None, "what": "log", "detail": "is not seen"}
