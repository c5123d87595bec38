"""What a data set is on disk: manifest, shards, columns; their reader and writer."""
