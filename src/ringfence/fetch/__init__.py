"""The fetcher of feeds: a process of its own, without rights, that downloads lists by HTTPS.

It reads a plan (which lists, how often), and writes files. It knows neither the configuration nor the daemon,
and judges no list: the daemon does.
"""
