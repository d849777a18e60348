"""Measurements of the whole server that are too long for the tests."""
