"""Do shallow modules underfit and deep ones overfit (Table 9)?"""

from collections.abc import Callable

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


WHYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "no dropout": ("no dropout", ("--model.dropout=0",)),
    "no CCMR": ("no CCMR", ("--model.ccmr_alpha=0",)),
    "long": ("4 times the steps", ("--trainer.max_epochs=644",)),
}
"""Why it comes out as it does, on few rows: label and arguments of ``lightning fit``."""

WHY_OF = ("1", "5")


def _runs(arm: str, variant: str, split: str, more: tuple[str, ...], seeds: int) -> list[Run]:
    projector, reconstructor = VARIANTS[variant]
    overrides = (
        f"--model.projector_widths={projector}",
        f"--model.reconstructor_widths={reconstructor}",
        "--model.ccmr_mask_diagonal=false",
        f"--data.train_split={split}",
        f"--trainer.max_epochs={EPOCHS[split]}",
        *more,
    )
    return [Run(arm, seed, WORLD, depth_measures, overrides, DATA) for seed in range(seeds)]


def runs(seeds: int) -> list[Run]:
    """Every variant on few and on many rows; then the whys."""
    made = []
    for split in EPOCHS:
        for variant in VARIANTS:
            made += _runs(f"{split} {variant}", variant, split, (), seeds)
    for why, (_, more) in WHYS.items():
        for variant in WHY_OF:
            made += _runs(f"small {variant} {why}", variant, "small", more, seeds)
    return made


BASELINES = {
    "recall@1": "recall@1/visual_to_audio_baseline/ridge",
    "ssms": "ssms_baseline/ridge",
    "reconstruction_cosine": "reconstruction_cosine_baseline/ridge",
}


def report(seeds: int) -> dict[str, str]:
    """Two tables; draws the figure."""
    results, made = Results(FILE), runs(seeds)

    def values(arm: str, name: str) -> list[float]:
        return results.values([run for run in made if run.arm == arm], name)

    def cells(arm: str) -> list[str]:
        parts = [(f"{part}/{name}", digits) for name, digits in SHOWN.items() for part in ("train", "held_out")]
        return [mean_and_spread(values(arm, name), digits) for name, digits in parts]

    measured = [f"{name}, {part}" for name in ("recall@1", "SSMS", "cosine") for part in ("trained", "held out")]
    rows = []
    for split in EPOCHS:
        for variant, widths in VARIANTS.items():
            arm = f"{split} {variant}"
            parameters = mean_and_spread([count / 1e6 for count in values(arm, "parameters")[:1]], 2)
            rows.append([ROWS[split], f"{variant} / {len(widths[1]) // 2}", parameters, *cells(arm)])
        baseline = [mean_and_spread(values(f"{split} 3", BASELINES[name]), digits) for name, digits in SHOWN.items()]
        rows.append([ROWS[split], "ridge", "", *(cell for value in baseline for cell in ("", value))])
    header = ["training rows", "blocks of projector / reconstructor", "million parameters", *measured]
    whys = []
    for variant in WHY_OF:
        for why, label in {"": "as above", **{why: label for why, (label, _) in WHYS.items()}}.items():
            line_cells = cells(f"small {variant} {why}".strip())
            whys += [[variant, label, *line_cells]] if any(line_cells) else []
    _draw(values)
    return {"depth": markdown_table(header, rows), "depth why": markdown_table(["blocks", "", *measured], whys)}


def _draw(values: Callable[[str, str], list[float]]) -> None:
    with figure("depth", 3, width=10.5) as axes:
        for axis, name, title in zip(axes, SHOWN, ["recall@1", "SSMS", "reconstruction cosine"], strict=True):
            for split, colour in (("small", "orange"), ("large", "blue")):
                for part, dashes in (("train", "--"), ("held_out", "-")):
                    shift = {"small": -0.04, "large": 0.04}[split] + {"train": -0.02, "held_out": 0.02}[part]
                    samples = [values(f"{split} {variant}", f"{part}/{name}") for variant in VARIANTS]
                    label = f"{ROWS[split]} rows, {'trained' if part == 'train' else 'held out'}"
                    options = {"color": COLOURS[colour], "linestyle": dashes, "label": label}
                    places = [int(variant) + shift for variant in VARIANTS]
                    line(axis, places, samples, **options)
            axis.set_title(title)
            axis.set_xlabel("residual blocks of a projector")
            axis.set_xticks([int(variant) for variant in VARIANTS])
        axes[0].legend(frameon=False, fontsize=8, handlelength=3)
