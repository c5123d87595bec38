"""A step of the manifold with ``step: graph``, bf16, through Lightning; and its weights, against compiled steps."""

from lightning.pytorch.callbacks import ModelCheckpoint

from gpu_parts.compiled import CompileTime
from gpu_parts.equality import equal, trained
from gpu_parts.inputs import Inputs
from gpu_parts.manifold import time_step
from gpu_parts.process import Report
from lightning_ss2a.training.step.graph import WARM_UP


def run(inputs: Inputs, report: Report) -> None:
    """Time the steps; then train the same steps several ways. The kernels are those of the part ``compiled``."""
    time_step(inputs, report, "graph", [CompileTime(report, steps=WARM_UP + 1)])
    half = inputs.sizes.equal_steps // 2
    folder = f"{inputs.folder}/graph"
    saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=half, save_top_k=-1)
    graph = trained(inputs, report, [saving], step="graph")
    report(graph_equal=equal(graph, trained(inputs, report, step="compiled")))
    report(graph_repeat_equal=equal(graph, trained(inputs, report, step="graph")))
    resumed = trained(inputs, report, step="graph", resume=f"{folder}/step={half}.ckpt")
    report(graph_resume_equal=equal(graph, resumed))
