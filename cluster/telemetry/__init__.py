"""Seeing the service: metrics and traces. Free of Ray; ``deployments`` carries the metrics to Ray's exporter."""
