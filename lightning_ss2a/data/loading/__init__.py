"""Shards to batches: what is read, in which order, and where it is kept."""
