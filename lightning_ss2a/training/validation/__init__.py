"""The metrics of a validation, with their baselines and targets."""
