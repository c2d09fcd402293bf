"""Reads the configuration: converts TOML to typed settings, or reports all errors at once with their keys."""
