"""The alarms about feeds: their codes, and what each means and asks for."""

from ringfence.alarm_codes import AnyAlarmCode


class FeedAlarmCode(AnyAlarmCode):
    """The codes of the alarms about feeds: block lists of others."""

    FEED_REFUSED = (
        "feed.refused",
        "A feed's new list cannot be read, is damaged, or has a suspicious size; the last good list stays.",
        "Look at the list. `ringfence feeds refresh --force NAME` accepts any size up to `max_bans`.",
    )
    FEED_FAILED = (
        "feed.failed",
        (
            "A feed has no list yet, was not fetched for half of its `max_age`, its file is gone, or its "
            "list cannot be kept for a restart."
        ),
        (
            "Look at `systemctl status ringfence-feeds`, at the program that writes the file, or at the "
            "folder that the text names."
        ),
    )
    FEED_EXPIRED = (
        "feed.expired",
        "A feed's list is older than its `max_age`; it denies nothing until there is a new one.",
        (
            "Look at `systemctl status ringfence-feeds`, or at the program that writes the file, or remove "
            "the feed."
        ),
    )


CODES = FeedAlarmCode
