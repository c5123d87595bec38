"""Encodes pictures and sounds."""
