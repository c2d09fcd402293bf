"""Bytes in, security events out; no socket, file, clock or logger.

One file a format: ``ami`` reads the packets of an AMI connection, ``log`` the lines of a log file
(``formats`` is the table of what they may say, ``prefix``, ``dates`` and ``jsonline`` read what stands around
it), ``address`` the addresses that all of them carry. ``many`` reads logs of the past, many lines at once
(``ordinary`` the commonest of them). Whatever a parser is given, it says one of three things: an event,
nothing, or that somebody tampered; it never raises for bytes, and never grows without bound.

Patterns are anchored, and single characters are repeated possessively. Groups are not: Python 3.11.2, which
Debian 12 has, loses its place where the body of a possessive group fails half-way (3.11.7 does not).
"""
