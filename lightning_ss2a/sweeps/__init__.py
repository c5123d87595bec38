"""Hyperparameter sweeps: a search space, a queue of trials in a storage, workers that run them, and their report."""
