"""Notifications: bans, alarms and the daemon's start and stop, sent to administrators.

A notification (``notifications``) is one thing that happened: a ban or the begin of an alarm, for example.
The configuration, the messages and the log call it an event. It is not a security event of Asterisk.

A *channel* is one way to send messages: by mail, by Apprise or by a command. The daemon collects the
notifications for each channel in a *digest* (``guard``), and passes it to a child process (``sender``). The
child looks up locations, writes the text and sends it. So no server and no program of a channel can delay a
ban, and the child has none of the daemon's capabilities. Apprise and commands are run by a service with
another user (``runner``), because the daemon's user may switch the guard off.
"""

from ringfence.street import Command

COMMANDS = {"notify": Command(f"{__name__}.command", "Test the notifications.")}
