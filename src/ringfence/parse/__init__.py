"""Parsers: bytes in, security events out; no socket, file, clock or logger.

Each format has its own module. ``ami`` parses the packets of an AMI connection. ``log`` parses the lines of a
log file: it has the table of known messages, and ``prefix`` and ``dates`` parse what surrounds a message.
Of the packets that the kernel copied, ``challenge`` parses the answers, and ``requests`` those of strangers.
``roster`` parses Asterisk's lists of phones and trunks. ``address`` parses the addresses in all of them.

For any bytes, a parser returns events, or a reason for giving no event, or None. If a sender's text broke the
format, the event is marked as tampered. No bytes make a parser raise an exception. Its memory is bounded.

Patterns are anchored. A repetition of single characters is possessive (``*+``): it never gives characters
back, so matching takes linear time. Python 3.11.2, which Debian 12 has, may lose the position in the text if
the body of a possessive group fails half-way. So only four patterns repeat a whole group possessively (in
``challenge`` and ``requests``). On 60 000 random texts, these gave the same matches with 3.11.2 and 3.11.7.
"""
