"""Simulates a world of known truth, and draws data sets from it. Never real data."""
