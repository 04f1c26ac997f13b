"""The batch graph: what has an end is permuted as a whole. It knows nothing of `stream/`."""
