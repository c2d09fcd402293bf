"""Metrics for Prometheus: ``[metrics]``."""
