"""A simulated world of known truth, and data sets drawn from it. Never real data."""
