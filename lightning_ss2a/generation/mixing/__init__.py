"""From scenes to audio embeddings: SS2A, and the methods that the paper compares it with."""
