"""Audit of Asterisk's files and of this host: settings that make attacks easier, and how to fix them."""
