"""The administrator's lists: whom nothing bans, and whom nothing lets in.

Entries come from the configuration, from commands, and from imported files; they are networks, hosts' names,
countries and network numbers. Out come two sets of networks for the kernel (``rolls``). Files and databases
are read here; where names lead is told from outside.
"""
