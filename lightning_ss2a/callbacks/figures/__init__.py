"""Pictures for TensorBoard, drawn after a validation."""
