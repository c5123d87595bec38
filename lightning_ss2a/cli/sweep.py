"""``ss2a sweep``: many runs of ``lightning``, chosen by Optuna."""

from typing import Any

from rich.console import Console

from lightning_ss2a.sweeps.definition import Sweep
from lightning_ss2a.sweeps.reporting.live_display import Display, summary

DRY_RUN_TRIALS = 3


def sweep(dry_run: bool = False, **options: Any) -> int:
    """Vary configuration paths of lightning fit over many runs, and rank what they reach.

    Args:
        dry_run: print the first trials' configurations, write nothing and run nothing.
        options: see ``Sweep``.
    """
    from lightning_ss2a.sweeps.dry_run import first_configurations
    from lightning_ss2a.sweeps.reporting.results import write_results
    from lightning_ss2a.sweeps.running.coordinator import Coordinator

    definition = Sweep(**options)
    console = Console()
    if dry_run:
        print(first_configurations(definition, DRY_RUN_TRIALS))
        return 0
    display = Display(console)
    coordinator = Coordinator(definition, display.line)
    workers = f"{definition.workers} worker{'s' * (definition.workers > 1)}"
    display.line(f"{definition.root}: {summary(coordinator.queue.records(), definition.workers)}; {workers} here")
    try:
        with display:
            try:
                coordinator.run(lambda: display.update(coordinator))
            except KeyboardInterrupt:
                display.line(f"stopped; the same command goes on ({summary(coordinator.queue.records(), 1)})")
                raise
        records = coordinator.queue.records()
        write_results(coordinator, console)
    finally:
        coordinator.close()
    display.line(f"{definition.root}: {summary(records, definition.workers)}")
    return 0 if any(record.state in ("complete", "pruned") for record in records) else 1
