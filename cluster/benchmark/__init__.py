"""Load generation and side-by-side measurements."""
