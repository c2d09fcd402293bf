"""Reads the configuration: TOML to typed settings, all errors at once, each with its key."""
