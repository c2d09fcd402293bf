"""The administrator's lists: networks that are never banned, and networks that are always denied.

Entries come from the configuration and from commands: networks, host names and regions (``entries``).
Features add networks of others. The result is sets of networks for the kernel. This
package reads files and databases. It does not resolve host names: the daemon passes their addresses in.
"""
