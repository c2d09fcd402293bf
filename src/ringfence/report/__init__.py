"""The report of a period: what was tried, by whom, and what ringfence did about it.

``summary`` is pure: it makes the report from the daemon's answers, which a command can also read from the
database. The command prints it, and the live page's package draws it as one page of HTML.
"""
