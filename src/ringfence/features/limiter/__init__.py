"""The limiter: the kernel drops the packets of a source that sends too many, and a long flood is a ban.

``settings`` has its rules, ``floods`` judges the sources that exceed the limit.
"""
