"""What ``benchmarks/claims.py`` runs: one file a claim, and what they share."""
