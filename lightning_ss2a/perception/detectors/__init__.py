"""Detectors: pictures to boxes with labels and scores."""
