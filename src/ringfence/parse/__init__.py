"""Parsers: bytes in, security events out; no socket, file, clock or logger.

Each format has its own module. ``ami`` parses the packets of an AMI connection. ``log`` parses the lines of a
log file: ``formats`` is the table of known messages, and ``prefix``, ``dates`` and ``jsonline`` parse what
surrounds a message. ``challenge`` and ``observed`` parse packets that the kernel copied. ``roster`` parses
Asterisk's lists of phones and trunks. ``address`` parses the addresses in all of them.

For any input, a parser returns an event, nothing, or a mark that the text was tampered with. It never raises
for bytes, and its memory is bounded.

Patterns are anchored, and single characters are repeated possessively. Groups are not: in Python 3.11.2,
which Debian 12 has, a possessive group loses its position if its body fails half-way (3.11.7 is correct).
"""
