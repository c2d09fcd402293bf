"""Replay of past logs and AMI recordings with the daemon's parsers and rules, at the times written in them.

``files`` opens the files, determines their formats, and orders the rotated files of a log. ``run`` plays them
to a detector, and keeps the results of each address. ``parse`` shows how the lines of a log are read.
"""

from ringfence.street import Command

COMMANDS = {
    "parse": Command(
        f"{__name__}.parse_command", "Show line by line how ringfence parses a log. Changes nothing."
    ),
    "replay": Command(
        f"{__name__}.command",
        "Show which addresses would have been banned in past logs and AMI recordings. Changes nothing.",
    ),
}
