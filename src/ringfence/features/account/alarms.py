"""The alarms about logins: their codes, and what each means and asks for."""

from ringfence.alarm_codes import AnyAlarmCode, Mark


class AccountAlarmCode(AnyAlarmCode):
    """The codes of the alarms about the places where accounts log in."""

    ACCOUNT_ELSEWHERE = (
        "account.elsewhere",
        "An account logs in from a country, or a network, that has nothing to do with its earlier logins.",
        "If its owner is there, run `ringfence account ACCOUNT confirm`. Otherwise change its password.",
    )
    ACCOUNT_NETWORK = (
        "account.network",
        "An account logs in from a new network of its country. Only `events` and `why` show this.",
        "There is nothing to do.",
        Mark.INFO,
    )


CODES = AccountAlarmCode
