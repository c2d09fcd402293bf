"""Parsers: bytes in, security events out; no socket, file, clock or logger.

Each format has its own module. ``ami`` parses the packets of an AMI connection. ``log`` parses the lines of a
log file, ``formats`` has the table of known messages, and ``wrappers``, ``prefix`` and ``dates`` parse what
surrounds a message. Of the packets that the kernel copied, ``answers`` parses Asterisk's answers, and
``requests`` the requests of strangers. ``roster`` parses Asterisk's lists of phones and trunks. ``address``
parses the addresses in log lines.

For any bytes, a parser returns events, or a reason for giving no event, or None. If a sender's text broke the
format, the event is marked as tampered. No bytes make a parser raise an exception. Its memory is bounded.

Patterns are anchored. A repetition of single characters is possessive (``*+``), and that of a group atomic
(``(?>(?:…)*)``): neither gives anything back, so matching takes linear time. A possessive group would do the
same, but Python 3.11.2, which Debian 12 has, loses its place in the text if the group fails half-way.
"""
