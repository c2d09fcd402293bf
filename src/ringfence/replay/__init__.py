"""The past told again: logs and AMI captures through the same parsers, fold and rules, by the time of theirs.

``files`` opens what is to be read, says what it is, and puts the rotated files of one log in order; ``story``
reads one source from its first file to its last, and ``beside`` does so in a process of its own; ``account``
keeps what is known of each address; ``run`` puts them together.
"""
