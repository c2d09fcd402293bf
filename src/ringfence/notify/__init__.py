"""Notifications: bans, alarms and the daemon's start and stop, sent to administrators.

The daemon collects what happens in one digest for each channel (``outbox``) and passes it to a child process
(``sender``), which looks up countries, writes the text and sends it. So no server and no program of a channel
can delay a ban, and none of them has the daemon's capabilities.
"""
