"""Where evidence comes in: one file a kind of witness.

``ami`` listens to a manager connection. ``logs`` finds an Asterisk's logs, ``logfile`` follows one of them
(``follow``, ``trail`` and ``tail`` through its rotations, ``hearing`` with the time at which it counts), and
``journal`` follows systemd's. ``wire`` looks at the challenges that leave the host. Each is a task that runs
for ever, hands what it heard to a sink, and says by a :class:`state.Condition` how it is.
"""
