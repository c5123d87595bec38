"""Measures whether a Remixer beats the mean of its sources' χ(e_m), on manifolds trained well and on the demo.

    python docs/measure_remixer.py runs/remixer simulated --seeds 0 1 2     # worlds, manifolds, all arms
    python docs/measure_remixer.py runs/remixer demo --folds 0 1 2 3 4
    python docs/measure_remixer.py                                          # the tables of the page from the csv files

What was measured stands in ``docs/claims/runs/WORLD/remixer_residual.csv``, one row for each arm, rule and group of
scenes; rows that are there are not measured again. Remixers are trained on the losses of ``RemixerModule`` from slots
that are projected once, in this process, so that an arm takes half a minute of one core.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize
from torch.optim.lr_scheduler import LambdaLR

from lightning_ss2a.analysis.probes import TruthBound
from lightning_ss2a.data import ShardDataset
from lightning_ss2a.data.format.label_head import LabelHead
from lightning_ss2a.data.loading.tensors import Batch
from lightning_ss2a.data.simulation.truth import read_truth, read_world
from lightning_ss2a.files import write_whole
from lightning_ss2a.metrics.functional import sound_source_matching_score
from lightning_ss2a.models import CycleMixOptions, DiagonalGaussian, RemixerOptions
from lightning_ss2a.models.source_slots import SourceSlots
from lightning_ss2a.tables import fill_marked, marked
from lightning_ss2a.training import RemixerModule
from lightning_ss2a.training.optimization import OptimizationOptions, build_adamw, learning_rate_factor
from lightning_ss2a.training.variational import Embedding, SamplingOptions

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "docs" / "claims" / "runs"
PAGE = ROOT / "docs" / "claims" / "remixer.md"
TABLE = marked(r"measured (?P<world>simulated|demo) by docs/measure_remixer\.py")
COLUMNS = ("seed", "arm", "rule", "scenes", "ssms", "cosine", "score")
GROUPS = ("single", "several")
USUAL_SCENES, MOST_SCENES = 6000, 24000


@dataclass(frozen=True)
class Arm:
    """How a Remixer is trained.

    Attributes:
        name: of the row in the table.
        remixer: architecture.
        source_embedding: what e is while training.
        seen: what the loss sees of the mixed Gaussian.
        kl_weight: λ_2 of Eq. 9.
        optimization: the optimiser.
        scenes: that it is trained on, of the world's the first.
        epochs: passes over them.
        batch_size: scenes of a step.
        rules: ways to an embedding that are measured beside the Gaussian's mean.
    """

    name: str
    remixer: RemixerOptions
    source_embedding: Embedding = "sample"
    seen: Embedding = "sample"
    kl_weight: float = 5e-5
    optimization: OptimizationOptions = field(
        default_factory=lambda: OptimizationOptions(4e-3, warmup_steps=20, schedule="cosine")
    )
    scenes: int = USUAL_SCENES
    epochs: int = 8
    batch_size: int = 256
    rules: Mapping[str, CycleMixOptions] = field(default_factory=dict)


@dataclass(frozen=True)
class Scenes:
    """Scenes of a world, projected.

    Attributes:
        batch: what the data set holds, [R, ...] each.
        slots: of these.
        truth: best guesses of their audio by name, [R, A]; empty where the truth is not known.
    """

    batch: Batch
    slots: SourceSlots
    truth: Mapping[str, Tensor]


@dataclass(frozen=True)
class World:
    """What an arm is trained and measured on.

    Attributes:
        seed: of the world, or the fold that is held out.
        manifold: checkpoint.
        head: scores labels.
        training: scenes.
        held_out: scenes.
    """

    seed: int
    manifold: str
    head: LabelHead
    training: Scenes
    held_out: Scenes


# ---------------------------------------------------------------- worlds


def command(*words: str) -> None:
    """Runs a command of ours, from the root of the repository."""
    subprocess.run([str(Path(sys.executable).parent / words[0]), *words[1:]], check=True, cwd=ROOT)


def simulated_world(folder: Path, seed: int) -> World:
    """Draws the world of docs/claims of a seed and trains its manifold, unless they are there."""
    pairs, scenes = folder / f"pairs{seed}", folder / f"scenes{seed}"
    for target, splits in ((pairs, []), (scenes, [f"--splits={{validation: 600, train: {MOST_SCENES}}}"])):
        if not target.exists():
            config = f"configs/studies/{target.name.rstrip(str(seed))}.yaml"
            command("ss2a", "shards", "simulate", "-c", config, str(target), f"--seed={seed}", *splits)
    manifold = folder / "manifold" / f"s{seed}" / "checkpoints" / "last.ckpt"
    if not manifold.exists():
        logger = {"save_dir": str(folder), "name": "manifold", "version": f"s{seed}"}
        options = {f"trainer.logger.init_args.{name}": value for name, value in logger.items()}
        options |= {"seed_everything": str(seed), "data.seed": str(seed), "data.datasets": str(pairs)}
        given = [f"--{name}={value}" for name, value in options.items()]
        command("lightning", "fit", "-c", "configs/studies/simulated_manifold.yaml", *given)
    return read_world_of(str(scenes), str(manifold), seed, ["train"], "validation", with_truth=True)


def demo_world(folder: Path, fold: int) -> World:
    """Trains the demo's manifold on four folds, unless it is there."""
    manifold = folder / f"fold{fold}" / "manifold" / "checkpoints" / "last.ckpt"
    if not manifold.exists():
        logger = {"save_dir": str(folder), "name": f"fold{fold}", "version": "manifold"}
        options = [f"--trainer.logger.init_args.{name}={value}" for name, value in logger.items()]
        command("lightning", "fit", "-c", "configs/manifold.yaml", f"--data.fold={fold}", *options)
    others = [f"fold{n}" for n in range(5) if n != fold]
    return read_world_of("shards/demo_scenes", str(manifold), fold, others, f"fold{fold}", with_truth=False)


def read_world_of(
    scenes: str, manifold: str, seed: int, training: Sequence[str], held_out: str, with_truth: bool
) -> World:
    """Reads scenes and projects them."""
    manifest = ShardDataset(scenes, held_out).manifest
    module = make_module(manifest.fields["sources"].width, manifest.fields["audio"].width, manifold)
    parts = [
        Scenes(batch, module.slots(batch), best_guesses(scenes, splits[0], batch) if with_truth else {})
        for splits in (training, [held_out])
        for batch in [joined([ShardDataset(scenes, split).columns() for split in splits])]
    ]
    return World(seed, manifold, manifest.load_label_head(scenes), *parts)


def joined(columns: Sequence[Batch]) -> Batch:
    """Joins splits to one batch; scenes of fewer slots get empty ones."""
    most = max(c["sources"].shape[1] for c in columns)
    found: Batch = {"key": [key for c in columns for key in c["key"]]}
    for name in ("sources", "valid", "global_visual", "audio", "index"):
        parts = [c[name] for c in columns]
        if name in ("sources", "valid"):
            parts = [torch.cat([x, x.new_zeros(len(x), most - x.shape[1], *x.shape[2:])], dim=1) for x in parts]
        found[name] = torch.cat(parts)
    return found


def best_guesses(scenes: str, split: str, batch: Batch) -> dict[str, Tensor]:
    """Guesses the audio from the world's truth, as ``TruthBound`` does."""
    bound = TruthBound()
    bound.world, bound.truth = read_world(scenes), read_truth(scenes, split)
    rows, sources = batch["index"].numpy(), batch["sources"].numpy()
    return {
        "classes known": bound.guess(rows, sources, "equal"),
        "classes and gains known": bound.guess(rows, sources, "known"),
    }


def make_module(visual_width: int, audio_width: int, manifold: str, arm: Arm | None = None) -> RemixerModule:
    """Makes the module of an arm on a manifold."""
    arm = arm or Arm("", RemixerOptions())
    return RemixerModule(
        visual_width,
        audio_width,
        manifold_checkpoint=manifold,
        source_embedding=arm.source_embedding,
        remixer=arm.remixer,
        sampling=SamplingOptions(arm.seen),
        kl_weight=arm.kl_weight,
        optimization=arm.optimization,
    ).eval()


# ---------------------------------------------------------------- training and measuring


def rows_of(slots: SourceSlots, rows: Tensor) -> SourceSlots:
    """Picks scenes."""
    cmss = DiagonalGaussian(slots.cmss.mean[rows], slots.cmss.log_variance[rows])
    return SourceSlots(cmss, slots.visual[rows], slots.valid[rows], slots.weight[rows])


def first_scenes(scenes: Scenes, count: int) -> Scenes:
    """Picks the first scenes."""
    rows = torch.arange(min(count, len(scenes.slots.valid)))
    batch = {name: x[rows] if isinstance(x, Tensor) else x[: len(rows)] for name, x in scenes.batch.items()}
    return Scenes(batch, rows_of(scenes.slots, rows), {})


def train(world: World, arm: Arm) -> RemixerModule:
    """Trains an arm; its seed is the world's."""
    torch.manual_seed(world.seed)
    chosen = torch.arange(min(arm.scenes, len(world.training.slots.valid)))
    audio, slots = world.training.batch["audio"][chosen], rows_of(world.training.slots, chosen)
    module = make_module(slots.visual.shape[-1], audio.shape[-1], world.manifold, arm)
    optimizer = build_adamw(module.remixer.parameters(), arm.optimization)
    steps = arm.epochs * (len(audio) // arm.batch_size)
    schedule = LambdaLR(optimizer, lambda step: learning_rate_factor(step, steps, arm.optimization))
    heard = module.source_audio(slots)
    module.remixer.train()
    for _ in range(arm.epochs):
        for rows in torch.randperm(len(audio)).split(arm.batch_size)[: len(audio) // arm.batch_size]:
            e, v, valid = rows_of(slots, rows).tokens(draws=int(arm.source_embedding == "sample"))
            inputs = {"e": e, "v": v, "valid": valid, "audio": audio[rows]}
            if heard is not None:
                inputs["source_audio"] = heard[rows]
            optimizer.zero_grad()
            module.terms(inputs)["loss"].backward()
            optimizer.step()
            schedule.step()
    return module.eval()


@torch.no_grad()
def predictions_of(module: RemixerModule, arm: Arm, scenes: Scenes) -> Iterator[tuple[str, Tensor]]:
    """Predicts held-out scenes by the Gaussian's mean and by each rule, [R, A]."""
    yield "mean", mean_of(module, scenes.slots)
    for rule, options in arm.rules.items():
        yield rule, module.mix_in_cycles(scenes.batch, scenes.slots, options=options).embedding


@torch.no_grad()
def mean_of(module: RemixerModule, slots: SourceSlots) -> Tensor:
    """Computes the Gaussian's mean of every scene, a thousand at a time, [R, A]."""
    parts = torch.arange(len(slots.valid)).split(1000)
    return torch.cat([module.mix(rows_of(slots, part)).mean for part in parts])


@torch.no_grad()
def baselines_of(world: World) -> Iterator[tuple[str, Tensor]]:
    """Predicts held-out scenes without a Remixer, [R, A]."""
    scenes = world.held_out
    module = make_module(scenes.slots.visual.shape[-1], scenes.batch["audio"].shape[-1], world.manifold)
    alone = unit_sources(module, scenes.slots)
    counted = (scenes.slots.valid & (scenes.slots.weight > 0)).to(alone)
    yield "mean of χ(e)", (alone * counted.unsqueeze(-1)).sum(1)
    yield "first source alone", alone[torch.arange(len(alone)), counted.argmax(1)]
    yield "best guess: nearest single source", best_source(alone, counted, scenes.batch["audio"])
    audio = normalize(world.training.batch["audio"], dim=-1)
    yield "mean audio", audio.mean(0).expand(len(alone), -1)
    chosen = torch.randint(len(audio), (len(alone),), generator=torch.Generator().manual_seed(world.seed))
    yield "chance", audio[chosen]
    yield from ((f"best guess: {name}", guess) for name, guess in scenes.truth.items())


def unit_sources(module: RemixerModule, slots: SourceSlots) -> Tensor:
    """Computes the unit χ(e_m) of every slot, [R, S, A]."""
    return normalize(module.manifold.reconstruct_audio(slots.cmss.mean).mean, dim=-1)


def best_source(alone: Tensor, counted: Tensor, audio: Tensor) -> Tensor:
    """Picks of each scene the source whose χ(e_m) is nearest to the true audio, which nobody can know, [R, A]."""
    cosines = cosine_similarity(alone, audio.unsqueeze(1), dim=-1).masked_fill(counted == 0, -torch.inf)
    return alone[torch.arange(len(alone)), cosines.argmax(1)]


@torch.no_grad()
def rows_of_prediction(world: World, arm: str, rule: str, predicted: Tensor) -> Iterator[dict[str, str]]:
    """Measures a prediction of the held-out scenes, those of one source and those of several."""
    scenes = world.held_out
    audio = scenes.batch["audio"]
    # As in validation: the head was fitted to embeddings of this norm.
    norm = world.training.batch["audio"].norm(dim=-1).mean()
    scores = world.head.scores(normalize(predicted, dim=-1) * norm), world.head.scores(audio)
    ssms = sound_source_matching_score(*scores, reduction="none")
    cosine = cosine_similarity(predicted, audio, dim=-1)
    module = make_module(scenes.slots.visual.shape[-1], audio.shape[-1], world.manifold)
    counted = (scenes.slots.valid & (scenes.slots.weight > 0)).to(predicted)
    cosines = cosine_similarity(predicted.unsqueeze(1), unit_sources(module, scenes.slots), dim=-1)
    score = (cosines * counted).sum(1) / counted.sum(1)
    several = scenes.batch["valid"].sum(1) > 1
    for group, there in zip(GROUPS, (~several, several), strict=True):
        numbers = (f"{float(x[there].mean()):.5f}" for x in (ssms, cosine, score))
        yield dict(zip(COLUMNS, (str(world.seed), arm, rule, group, *numbers), strict=True))


def measure(world: World, arms: Sequence[Arm], file: Path) -> None:
    """Trains and measures the arms that the file does not have yet, and adds them to it."""
    known = {(row["seed"], row["arm"]) for row in read_rows(file)}
    if (str(world.seed), "") not in known:
        rows = [row for name, x in baselines_of(world) for row in rows_of_prediction(world, "", name, x)]
        add_rows(file, rows)
    for arm in arms:
        if (str(world.seed), arm.name) in known:
            continue
        module = train(world, arm)
        seen = replace(world, held_out=first_scenes(world.training, USUAL_SCENES))
        fitted = rows_of_prediction(seen, arm.name, "mean, training scenes", mean_of(module, seen.held_out.slots))
        held_out = [
            row
            for rule, predicted in predictions_of(module, arm, world.held_out)
            for row in rows_of_prediction(world, arm.name, rule, predicted)
        ]
        add_rows(file, [*held_out, *fitted])


def read_rows(file: Path) -> list[dict[str, str]]:
    """Reads what was measured."""
    if not file.exists():
        return []
    with open(file, newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def add_rows(file: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Adds rows to what was measured, and shows them."""
    new = not file.exists()
    with open(file, "a", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(*row.values(), sep="\t", flush=True)


# ---------------------------------------------------------------- what is measured, and its tables

_DRAW = CycleMixOptions(iterations=1, samples=1)
_OPTIMUM = CycleMixOptions(iterations=1, proposal="optimum")
RULES = {
    "one draw": _DRAW,
    "Cycle Mix, 16 x 64 draws": CycleMixOptions(iterations=16, samples=64),
    "to the optimum, radius 0.3": replace(_OPTIMUM, trust_radius=0.3),
    "to the optimum, radius 1": replace(_OPTIMUM, trust_radius=1.0),
    "to the optimum, no bound": _OPTIMUM,
}

BASELINES = (
    "chance",
    "mean audio",
    "first source alone",
    "mean of χ(e)",
    "best guess: nearest single source",
    "best guess: classes known",
    "best guess: classes and gains known",
)


def arms_of(world: str) -> list[Arm]:
    """Lists what is trained in a world: the paper's Remixer, what might be wrong with it, and residuals."""
    if world == "demo":
        small = RemixerOptions(width=128, num_heads=4, head_widths=(128, 128), dropout=0.3)
        rates = OptimizationOptions(1e-3, warmup_steps=20, schedule="cosine")
        usual = Arm("paper", small, optimization=rates, epochs=40, batch_size=64, rules=RULES)
        residual = replace(usual, name="residual", remixer=replace(small, residual="mean"), epochs=10)
        weighted = replace(residual, name="weighted residual", remixer=replace(small, residual="weighted_mean"))
        return [usual, residual, weighted]
    small = RemixerOptions(width=128, num_heads=4, head_widths=(128, 128), dropout=0.1)
    usual = Arm("paper", small, rules=RULES)
    residual = replace(usual, name="residual", remixer=replace(small, residual="mean"))
    many = f"residual, {MOST_SCENES:,} scenes, no dropout"
    bare = replace(small, residual="mean", dropout=0.0, token_dropout=0.0)
    more = replace(residual, name=many, remixer=bare, scenes=MOST_SCENES, epochs=2)
    longest = replace(more, name=f"{many}, 4 times the steps", epochs=4 * more.epochs)
    long = replace(usual, name="paper, 3 times the steps", epochs=3 * usual.epochs, rules={})
    return [usual, long, residual, more, longest]


def table_of(rows: Sequence[Mapping[str, str]]) -> str:
    """Makes the table of a world: mean ± deviation of each prediction, and paired differences to the mean of χ(e)."""
    numbers: dict[tuple[str, str], dict[tuple[str, str], float]] = defaultdict(dict)
    for row in rows:
        for scale in ("ssms", "cosine", "score"):
            numbers[row["arm"], row["rule"]][f"{scale} {row['scenes']}", row["seed"]] = float(row[scale])
    plain = numbers["", "mean of χ(e)"]
    heads = ("SSMS, one source", "two or more", "less the mean of χ(e): one source", "two or more")
    heads += ("cosine, one source", "two or more", "score, two or more")
    lines = [f"| | runs | {' | '.join(heads)} |", f"| --- {'| ---: ' * (1 + len(heads))}|"]
    order = [("", name) for name in BASELINES] + [key for key in numbers if key[0]]
    for arm, rule in [key for key in order if key in numbers]:
        found = numbers[arm, rule]
        less = {key: found[key] - plain[key] for key in found if rule != "mean, training scenes"}
        cells = [spread(found, f"ssms {group}", 2) for group in GROUPS]
        cells += [spread(less, f"ssms {group}", 2, sign="+") for group in GROUPS]
        cells += [spread(found, f"cosine {group}", 4) for group in GROUPS] + [spread(found, "score several", 3)]
        runs = len({seed for _, seed in found})
        lines.append(f"| {f'{arm}: {rule}' if arm else rule} | {runs} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(found: Mapping[tuple[str, str], float], name: str, digits: int, sign: str = "") -> str:
    """Writes mean ± standard deviation over runs; nothing where there is none."""
    values = [value for (scale, _), value in found.items() if scale == name]
    if not values:
        return ""
    mean = f"{statistics.mean(values):{sign}.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def fill(page: Path) -> None:
    """Puts the tables of all worlds into the page."""
    text = page.read_text(encoding="utf-8")
    write_whole(page, fill_marked(text, TABLE, lambda found: f"{table_of(read_rows(file_of(found['world'])))}\n"))


def file_of(world: str) -> Path:
    """Where the numbers of a world are kept."""
    return RUNS / world / "remixer_residual.csv"


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="of data sets and manifolds")
    parser.add_argument("world", choices=["simulated", "demo"], nargs="?")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--folds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    if options.world == "simulated":
        for seed in options.seeds:
            measure(simulated_world(options.folder, seed), arms_of("simulated"), file_of("simulated"))
    elif options.world == "demo":
        for fold in options.folds:
            measure(demo_world(options.folder, fold), arms_of("demo"), file_of("demo"))
    fill(PAGE)


if __name__ == "__main__":
    main()
