"""Checks that several networks make of their arguments."""


def check_sizes(**sizes: int) -> None:
    """Raise ValueError if a size, given by its argument's name, is below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
