"""Choosing a pooling type by evidence."""
