"""Turns shards into batches: what is read, in which order, and where it stays."""
