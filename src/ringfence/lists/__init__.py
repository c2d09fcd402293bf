"""The administrator's lists: networks that are never banned, and networks that are always denied.

Entries come from the configuration, from commands, and from feeds. They are networks, host names, countries
and autonomous systems. The result is two sets of networks for the kernel. This package reads files and
databases. It does not resolve host names: the daemon passes their addresses in.
"""
