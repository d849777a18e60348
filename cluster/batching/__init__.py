"""Batches: how work gathers between stages, and how an encoder cuts it into micro-batches."""
