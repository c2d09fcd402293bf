"""Phones that are gone: they were registered for a day, and are away. One alarm lists them by network.

``absence`` decides which phones these are, and ``guard`` connects it with the daemon.
"""
