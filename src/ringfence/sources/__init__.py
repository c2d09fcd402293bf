"""Where evidence comes in: one file a kind of witness.

``ami`` listens to a manager connection. Log files, the journal and the wire will be files beside it; each is
a task that runs for ever, hands security events to a sink, and says by a :class:`state.Condition` how it is.
"""
