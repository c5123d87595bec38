"""Do shallow modules underfit and deep ones overfit (Table 9)?"""

from .ccmr import DATA, WORLD
from .figures import COLOURS, figure, line
from .measures import depth_measures
from .runs import Results, Run
from .tables import markdown_table, mean_and_spread

FILE = "depth"
VARIANTS = {
    "1": ([64, 64], [64, 64]),
    "2": ([64, 64, 128, 128], [64, 64, 75, 75]),
    "3": ([64, 64, 128, 128, 256, 256], [64, 64, 75, 75, 85, 85, 171, 171]),
    "5": ([64, 64, 128, 128, *[256] * 6], [64, 64, 75, 75, 85, 85, *[171] * 6]),
}
"""Widths of the projectors' and the reconstructor's layers, by residual blocks of a projector; 3 is the paper's B."""

EPOCHS = {"small": 161, "large": 14}
"""By training split: the same 322 steps (1,500 rows make 2 batches an epoch, 12,000 rows 23)."""

SHOWN = {"recall@1": 3, "ssms": 2, "reconstruction_cosine": 3}
ROWS = {"small": "1,500", "large": "12,000"}


def runs(seeds: int) -> list[Run]:
    """Every variant on few and on many rows."""
    made = []
    for split, epochs in EPOCHS.items():
        for variant, (projector, reconstructor) in VARIANTS.items():
            overrides = (
                f"--model.projector_widths={projector}",
                f"--model.reconstructor_widths={reconstructor}",
                "--model.ccmr_mask_diagonal=false",
                f"--data.train_split={split}",
                f"--trainer.max_epochs={epochs}",
            )
            options = {"overrides": overrides, "data": DATA}
            made += [Run(f"{split} {variant}", seed, WORLD, depth_measures, **options) for seed in range(seeds)]
    return made


def report(seeds: int) -> dict[str, str]:
    """One table; draws the figure."""
    results, made = Results(FILE), runs(seeds)

    def values(arm: str, name: str) -> list[float]:
        return results.values([run for run in made if run.arm == arm], name)

    rows = []
    for split in EPOCHS:
        for variant, widths in VARIANTS.items():
            arm = f"{split} {variant}"
            parameters = mean_and_spread([count / 1e6 for count in values(arm, "parameters")[:1]], 2)
            shown = [ROWS[split], f"{variant} / {len(widths[1]) // 2}", parameters]
            for name, digits in SHOWN.items():
                shown += [mean_and_spread(values(arm, f"{part}/{name}"), digits) for part in ("train", "held_out")]
            rows.append(shown)
        floors = {
            "recall@1": "recall@1/visual_to_audio_floor/ridge",
            "ssms": "ssms_floor/ridge",
            "reconstruction_cosine": "reconstruction_cosine_floor/ridge",
        }
        cells = [["", mean_and_spread(values(f"{split} 3", floors[name]), digits)] for name, digits in SHOWN.items()]
        rows.append([ROWS[split], "ridge regression", "", *(cell for pair in cells for cell in pair)])
    header = ["training rows", "blocks of projector / reconstructor", "million parameters"]
    for name in ("recall@1", "SSMS", "reconstruction cosine"):
        header += [f"{name}, trained rows", "held out"]
    with figure("depth", 3, width=10.5) as axes:
        for axis, name, title in zip(axes, SHOWN, ["recall@1", "SSMS", "reconstruction cosine"], strict=True):
            for split, colour in (("small", "orange"), ("large", "blue")):
                for part, dashes in (("train", "--"), ("held_out", "-")):
                    samples = [values(f"{split} {variant}", f"{part}/{name}") for variant in VARIANTS]
                    label = f"{ROWS[split]} rows, {'trained' if part == 'train' else 'held out'}"
                    options = {"color": COLOURS[colour], "linestyle": dashes, "label": label}
                    line(axis, [int(variant) for variant in VARIANTS], samples, **options)
            axis.set_title(title)
            axis.set_xlabel("residual blocks of a projector")
            axis.set_xticks([int(variant) for variant in VARIANTS])
        axes[0].legend(frameon=False, fontsize=8)
    return {"depth": markdown_table(header, rows)}
