"""Reads media files as arrays."""
