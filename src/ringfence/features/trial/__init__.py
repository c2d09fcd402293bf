"""A trial: ``ringfence run --trial`` removes all rules and bans again, unless it is confirmed in time."""

from ringfence.street import Command

COMMANDS = {
    "confirm": Command(
        f"{__name__}.command", "Keep rules and bans after the trial of `ringfence run --trial`."
    ),
}
