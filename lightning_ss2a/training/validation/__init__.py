"""The numbers of a validation: metrics, baselines, targets."""
