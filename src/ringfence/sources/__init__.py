"""Sources of evidence: one module for each kind.

``ami`` listens to a manager connection, and ``roster`` asks it for phones and trunks. ``logs`` finds an
Asterisk's logs, ``log_file`` waits for changes of one of them, and ``log_rotation`` follows it through its
rotations. ``journal`` follows systemd's journal. ``log_ingest`` determines the time at which the events of
both count, and ``standby`` counts an event once if both AMI and logs deliver it. ``wire`` reads the SIP
answers that leave this host, and requests of strangers, as the kernel copies them. ``nflog`` reads the
kernel's packet log for it. ``state`` has the conditions of sources, and their base class, which starts a
source again.

Each source is a task that runs until it is cancelled, passes its events to a sink (a function), and reports
its state as a :class:`state.Condition`.
"""
