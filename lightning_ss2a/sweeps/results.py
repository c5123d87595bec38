"""Everything that a sweep leaves for people."""

from rich.console import Console

from lightning_ss2a.sweeps.coordinator import Coordinator


def write_results(coordinator: Coordinator, console: Console) -> None:
    """Write them."""
