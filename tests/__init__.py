"""A package, so that the `tests` that laion_clap installs beside it is not taken for it."""
