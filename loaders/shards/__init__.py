"""Reads records of a dataset directory into rows, in the order that `order/` says."""
