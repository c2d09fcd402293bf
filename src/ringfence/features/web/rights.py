"""The rights of the live page at the daemon: its user has the role ``page`` (``guard/request_fields.py``)."""

PAGE_USER = "ringfence-web"
"""The user of the live page's systemd unit, ``ringfence-web.service``."""
