"""What ``ss2a shards`` does with data sets: pack, validate, inspect."""
