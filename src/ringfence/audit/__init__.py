"""Audit of Asterisk's files and of this host: settings that make attacks easier, and their fixes."""
