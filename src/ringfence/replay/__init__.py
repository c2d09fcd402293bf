"""Replay of past logs and AMI recordings with the daemon's parsers and rules, at the times written in them.

``files`` opens the files, determines their formats, and orders the rotated files of a log. ``source_reader``
reads one source (a log with its rotated files, or a recording) from its first file to its last. ``outcomes``
keeps the results of each address, and ``run`` combines everything.
"""
