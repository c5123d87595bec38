"""An epoch of the Remixer as configs/paper/remixer.yaml has it, eager, on simulated scenes."""

import statistics
import time
from pathlib import Path

from lightning.pytorch import Callback, Trainer
from paper_sizes.steps import Pace, StepTimes, device

from gpu_parts.inputs import Inputs, KernelTimes, peak_memory, reset_peak_memory, smaller_model
from gpu_parts.process import Report
from lightning_ss2a.cli.lightning import build_cli

CONFIG = Path(__file__).parents[2] / "configs" / "paper" / "remixer.yaml"


class FirstStep(Callback):
    """When the first step starts: before it the manifold projects every embedding of the data."""

    def __init__(self) -> None:
        self.start = 0.0

    def on_train_start(self, *_: object) -> None:
        """Note it."""
        self.start = time.perf_counter()


def run(inputs: Inputs, report: Report) -> None:
    """Time the steps on a manifold of random weights, then look at the kernels of a few more."""
    sizes, dataset, manifold = inputs.sizes, inputs.dataset("scenes", report), f"{inputs.folder}/manifold.ckpt"
    save_manifold(inputs, manifold)
    steps_an_epoch = sizes.scenes // sizes.batch_size
    pace = Pace(sizes.pace.warm_up, sizes.pace.windows, min(sizes.pace.window, steps_an_epoch))
    first, times = FirstStep(), StepTimes(pace)
    kernels = KernelTimes(after=pace.steps, steps=sizes.profiled_steps)
    arguments = smaller_model(inputs, "remixer", sizes.remixer)
    arguments += [f"--data.datasets={dataset}", f"--data.batch_size={sizes.batch_size}"]
    arguments += [f"--model.manifold_checkpoint={manifold}", "--model.step=eager", "--trainer.max_epochs=-1"]
    arguments += [f"--trainer.max_steps={pace.steps + sizes.profiled_steps}", "--trainer.devices=1"]
    arguments += ["--trainer.limit_val_batches=0", "--trainer.logger=false", "--trainer.enable_checkpointing=false"]
    arguments += ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    arguments += ["--trainer.callbacks=[]", f"--trainer.default_root_dir={inputs.folder}/remixer"]
    reset_peak_memory()
    start = time.perf_counter()
    build_cli(["fit", "-c", str(CONFIG), *arguments], callbacks=[first, times, kernels])
    step = statistics.median(times.clock.seconds)
    report(
        startup_seconds=first.start - start,
        ms_a_step=step * 1e3,
        scenes=sizes.scenes,
        epoch_seconds=step * steps_an_epoch,
        scenes_per_second=sizes.batch_size / step,
        **peak_memory(),
        **kernels.figures(step),
    )


def save_manifold(inputs: Inputs, path: str) -> None:
    """A checkpoint of a manifold that has learned nothing."""
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator=device().type, devices=1)
    trainer.strategy.connect(inputs.manifold())
    trainer.save_checkpoint(path)
