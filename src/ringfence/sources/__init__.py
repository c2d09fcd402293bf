"""Sources of evidence: one module for each kind.

``ami`` listens to a manager connection. ``logs`` finds an Asterisk's logs, and ``logfile`` follows one of
them: ``log_follower``, ``log_rotation`` and ``log_tail`` read it through its rotations, and ``log_ingest``
determines the time at which its events count. ``journal`` follows systemd's journal. ``wire`` reads the
challenges that leave the host. Each source is a task that runs until it is cancelled, passes its events to a
sink, and reports its state as a :class:`state.Condition`.
"""
