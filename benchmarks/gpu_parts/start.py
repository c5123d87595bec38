"""What a new process does. Imports come late: the process that waits for the parts does without torch."""

from importlib import import_module

from gpu_parts.process import Figures, Report


def find_gpu(report: Report) -> None:
    """Report ``gpu``, its name or None, after a first computation on it, and the version of torch."""
    import torch

    name = None
    if torch.cuda.is_available():
        torch.zeros(1, device="cuda").item()
        name = torch.cuda.get_device_name()
    report(gpu=name, torch=torch.__version__)


def run_part(name: str, folder: str, smoke: bool, known: dict[str, Figures], report: Report) -> None:
    """Run a part; what its runs share, rows and the baselines fitted on them, is made once.

    Args:
        name: module of ``gpu_parts``.
        folder: where the parts share data.
        smoke: whether sizes are tiny.
        known: figures of the parts before, by part.
        report: takes the figures.
    """
    import logging

    import torch

    from gpu_parts.inputs import Inputs
    from lightning_ss2a.data.loading.shared_cache import use_shared_cache

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if smoke:
        torch.compiler.set_stance("force_eager")  # the same way, without the minutes of a compiler
    with use_shared_cache():
        import_module(f"gpu_parts.{name}").run(Inputs(folder, smoke, known), report)
