"""Where evidence comes in: one file a kind of witness.

``ami`` listens to a manager connection, ``wire`` looks at the challenges that leave the host. Log files and
the journal will be files beside them; each is a task that runs for ever, hands what it heard to a sink, and
says by a :class:`state.Condition` how it is.
"""
