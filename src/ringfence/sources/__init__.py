"""Sources of evidence: one module for each kind.

``ami`` listens to a manager connection, and ``roster`` asks it for phones and trunks. ``logs`` finds an
Asterisk's logs, and ``log_file`` follows one of them through its rotations, and determines the time at which
its events count. ``journal`` follows systemd's journal. ``standby`` counts an event once if both AMI and logs
deliver it.
``wire`` reads the SIP challenges (and other answers) that leave the host, as the kernel copies them.

Each source is a task that runs until it is cancelled, passes its events to a sink (a function), and reports
its state as a :class:`state.Condition`.
"""
