"""Runs a sweep: the queue of trials, the workers, what they say to each other."""
