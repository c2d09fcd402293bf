"""A year of logins of 200 accounts, with 60 thefts of passwords."""

import pytest
from tests.support.logins import DOMESTIC, FOREIGN, MOBILE, THEFTS, Year, play


@pytest.mark.parametrize(("located", "most", "least"), [(True, 1.0, THEFTS), (False, 2.0, THEFTS - 2)])
def test_thefts_are_noticed_and_travellers_are_no_alarm_each_week(
    located: bool,  # noqa: FBT001 - a parameter of the test
    most: float,
    least: int,
) -> None:
    """With and without a database of countries, alarms are few, and a login from another country is one.

    With a database, a login from another network of the country is listed. A login by the same mobile carrier
    looks like one of the account's owner.
    """
    without = play(Year(thefts=False), located=located)
    stolen = play(Year(), located=located)
    print(without.weekly, stolen)
    assert without.weekly <= most
    assert stolen.alarmed[FOREIGN] >= least
    if located:
        assert (stolen.alarmed[DOMESTIC], stolen.listed[DOMESTIC]) == (0, THEFTS)
        assert stolen.listed[MOBILE] == 0
