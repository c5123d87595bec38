"""Packs, validates and inspects data sets, as ``ss2a shards`` does."""
