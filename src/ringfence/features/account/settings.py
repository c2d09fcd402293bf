"""``[account]``: what follows from a login elsewhere."""

import enum

from attrs import frozen

from ringfence.config.converters import HOOKS, member


class Elsewhere(enum.StrEnum):
    """What follows from a login elsewhere. Each value also does what the ones before it do."""

    NOTIFY = "notify"  # an alarm
    STRANGER = "stranger"  # its address is no friend until the login is confirmed
    BLOCK = "block"  # its address is banned from the SIP ports until the login is confirmed


HOOKS[Elsewhere] = member


@frozen
class AccountSettings:
    """``[account]``: what follows from a login at a place that has nothing to do with those before."""

    elsewhere: Elsewhere = Elsewhere.NOTIFY


TABLE = AccountSettings
