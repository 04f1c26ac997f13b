"""Shards of a store on this host's disk: fetched by ranges, kept for all its processes."""
