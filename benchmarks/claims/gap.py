"""Does the contrast close the gap between the modalities?"""

import math
from collections.abc import Callable

import numpy as np

from .ccmr import FILE, alignment_runs
from .figures import COLOURS, figure
from .runs import Results, Run
from .tables import markdown_table, mean_and_spread

ARMS = {
    "untrained": "untrained",
    "0.35 masked": "trained, matching pairs masked (Eq. 7 as printed)",
    "0.35": "trained, matching pairs not masked",
    "0": "trained without CCMR",
}
WORLDS = ("simulated", "demo")
TITLES = ("modality gap", "told apart by a linear classifier")


def runs(seeds: int) -> list[Run]:
    """Four arms in both worlds."""
    return alignment_runs(list(ARMS), seeds)


ROWS = {"simulated": 512, "demo": 64}
"""Of a training batch."""


def _shortcut(values: Callable[[str, str, str], list[float]]) -> str:
    """The contrastive loss of a manifold that gives all pairs one cosine, from the runs' mean mask and temperature."""
    rows = []
    for world, batch in ROWS.items():
        for arm, label in (("0.35 masked", "all pairs"), ("0.35", "other pairs"), ("0", "none")):
            alpha = float(arm.split()[0])
            others = values(world, arm, "mask/other_pairs") if alpha else [1.0]
            temperature = values(world, arm, "temperature")
            if not (others and temperature):
                continue
            matching = math.exp(-alpha) if arm.endswith("masked") else 1.0
            scale = np.mean(temperature) * (np.mean(others) - matching)
            losses = [f"{math.log1p((batch - 1) * math.exp(cosine * scale)):.2f}" for cosine in (-1, 0, 1)]
            rows.append([world, label, f"{matching:.2f}", f"{np.mean(others):.2f}", *losses])
    header = ["", "masked", "mask of matching pairs", "of other pairs, mean"]
    return markdown_table([*header, "loss, all cosines -1", "0", "1"], rows)


def report(seeds: int) -> dict[str, str]:
    """Tables by world; draws the figure."""
    results, made = Results(FILE), runs(seeds)

    def values(world: str, arm: str, name: str) -> list[float]:
        return results.values([run for run in made if (run.world, run.arm) == (world, arm)], name)

    columns = ["modality_gap", "modality_accuracy", "matching_cosine", "other_cosine", "recall@1/visual_to_audio"]
    header = ["", "gap", "told apart", "cosine of matching pairs", "of other pairs", "recall@1"]
    blocks = {}
    for world in WORLDS:
        rows = [[label, *(mean_and_spread(values(world, arm, n)) for n in columns)] for arm, label in ARMS.items()]
        raw = [mean_and_spread(values(world, "untrained", f"raw/{name}")) for name in columns]
        if any(raw):
            rows.insert(0, ["raw embeddings", *raw])
        blocks[f"gap {world}"] = markdown_table(header, rows)
    blocks["gap shortcut"] = _shortcut(values)
    labels = ["raw", "untrained", "masked", "not masked", "no CCMR"]
    with figure("gap", 2) as axes:
        for axis, name, title in zip(axes, columns, TITLES, strict=False):
            for shift, (world, colour) in enumerate(zip(WORLDS, ("blue", "orange"), strict=True)):
                samples = [values(world, "untrained", f"raw/{name}"), *(values(world, arm, name) for arm in ARMS)]
                for at, sample in enumerate(samples):
                    if sample:
                        mean, spread = np.mean(sample), np.std(sample, ddof=1) if len(sample) > 1 else 0.0
                        place, label = at + 0.36 * shift - 0.18, world if at == 1 else None
                        axis.bar(place, mean, 0.34, yerr=spread, capsize=2, color=COLOURS[colour], label=label)
            axis.set_xticks(range(len(labels)), labels)
            axis.set_title(title)
        axes[1].axhline(0.5, color=COLOURS["grey"], linestyle="--", linewidth=1)
        axes[1].set_ylim(0, 1.05)
        axes[0].legend(frameon=False)
    return blocks
