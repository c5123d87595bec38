"""Figures for TensorBoard, drawn after a validation."""
