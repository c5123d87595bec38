"""Reads and writes data sets on disk: manifest, shards, columns."""
