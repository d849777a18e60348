"""``poolhouse embed``: records in, vectors out, with a journal between that survives the end of the process."""
