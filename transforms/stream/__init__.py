"""The stream graph: a rolling buffer in place of the GroupByKey. It knows nothing of `batch/`."""
