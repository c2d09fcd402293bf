"""Groups of attempts that are alike."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ringfence.explain.groups import grouped

_ATTEMPTS = st.lists(
    st.fixed_dictionaries(
        {
            "subject": st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::/64"]),
            "account": st.sampled_from(["", "alice", "bob", "100"]),
            "sources": st.sampled_from([["ami"], ["ami", "wire"]]),
        }
    ),
    max_size=12,
)


def attempt(time: str, subject: str, account: str) -> dict[str, Any]:
    """Return an attempt as the daemon encodes it, as far as groups need it."""
    return {"time": time, "subject": subject, "account": account, "reason": "wrong password"}


def test_one_row_for_each_sender() -> None:
    """Attempts of one sender are one row: how many, first and last, and the number of accounts."""
    found = grouped(
        [
            attempt("06:00", "192.0.2.1", "alice"),
            attempt("06:01", "192.0.2.2", "bob"),
            attempt("06:02", "192.0.2.1", "100"),
            attempt("06:03", "192.0.2.1", ""),
        ],
        ["subject"],
    )

    assert [(one["subject"], one["times"], one["first"], one["time"]) for one in found] == [
        ("192.0.2.1", 3, "06:00", "06:03"),
        ("192.0.2.2", 1, "06:01", "06:01"),
    ]
    assert [(one["account"], one["accounts"]) for one in found] == [("100", 2), ("bob", 1)]


def test_no_attempts_are_no_groups() -> None:
    """Without attempts there is no row, and without an account the group names none."""
    assert grouped([], ["subject"]) == []
    [one] = grouped([attempt("06:00", "192.0.2.1", "")], ["subject"])
    assert (one["account"], one["accounts"]) == ("", 0)


@given(rows=_ATTEMPTS)
def test_groups_have_each_attempt_once(rows: list[dict[str, Any]]) -> None:
    """The groups have as many attempts as there are, each group differs, and the latest one is first."""
    attempts = [row | {"time": f"{number:04}"} for number, row in enumerate(rows)]
    found = grouped(attempts, ["subject", "sources"])

    assert sum(one["times"] for one in found) == len(attempts)
    assert [one["time"] for one in found] == sorted((one["time"] for one in found), reverse=True)
    for one in found:
        same = [row for row in attempts if all(row[key] == one[key] for key in ("subject", "sources"))]
        assert (one["times"], one["first"], one["time"]) == (len(same), same[0]["time"], same[-1]["time"])
        assert one["accounts"] == len({row["account"] for row in same} - {""})
