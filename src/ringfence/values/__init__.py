"""Immutable value types that all packages share, in one module for each family.

These words have one meaning in all of ringfence. A *security event* is one parsed message of one source. An
*attempt* is one thing the remote party did; one or more security events report it. A *ban* is the result of
too many attempts. Addresses are :mod:`ipaddress` objects from the parser on. Times that are shown or stored
are seconds since the epoch. Times that are only compared with each other (is this attempt still in the time
window of a rule?) are monotonic seconds; they are never stored.
"""
