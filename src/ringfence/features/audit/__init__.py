"""Audit of Asterisk's own settings: which make attacks easier, with the fix. ``ringfence check`` prints it.

``accounts``, ``services`` and ``dialplan`` read Asterisk's files, and ask its console for what is in force.
``hardening`` judges them, if the administrator asks for that. ``check`` has the other findings.
"""
