"""The mean teacher and the filter of noisy pairs (paper, supplement 2.2)."""
