"""Measures which metrics tell a better method from a worse one with the fewest items.

    python docs/measure_metric_power.py runs/metric_power   # mixes, hears and measures; what is heard is kept there
    python docs/measure_metric_power.py                     # the page's tables and its figure from the table of results

Methods are mixes of real sounds whose sources are known. All but the best one are made of it by a fault, so that their
order is known without any metric. Results are ``docs/claims/runs/metric_power.csv``; they fill
``docs/claims/metric_power.md``, where a table stands between ``<!-- metric power NAME -->`` and ``<!-- end -->``.
"""

import argparse
import csv
import json
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.analysis.produced_sounds import Composition, Thing, read_compositions, read_things
from lightning_ss2a.builders.mixing import fit_length, mix, set_level
from lightning_ss2a.builders.sound_bank.bank import Bank, read_bank
from lightning_ss2a.data import LabelHead
from lightning_ss2a.data.loading.dataset import ShardDataset
from lightning_ss2a.drawing import new_figure
from lightning_ss2a.evaluation.measures import FAD, KAD
from lightning_ss2a.evaluation.power import (
    Power,
    draw_exchanges,
    draw_items,
    power,
    power_of_items,
    resampling,
    scores_of_set,
)
from lightning_ss2a.evaluation.scoring import Bootstrap
from lightning_ss2a.files import write_whole
from lightning_ss2a.metrics.functional import clip_score, paired_kl, sound_source_matching_score
from lightning_ss2a.metrics.functional.cosine import row_cosine
from lightning_ss2a.metrics.functional.kernel import median_distance
from lightning_ss2a.models.ridge import LinearMap, RidgeRegression
from lightning_ss2a.perception import YAMNet
from lightning_ss2a.perception.media.files import load_audio
from lightning_ss2a.tables import csv_text, fill_marked, markdown_table, marked

ROOT = Path(__file__).resolve().parent.parent
PAIRS, SCENES, BANK = (str(ROOT / "shards" / name) for name in ("demo", "demo_scenes", "bank"))
CLAIMS = ROOT / "docs" / "claims"
PAGE, RESULTS = CLAIMS / "metric_power.md", CLAIMS / "runs" / "metric_power.csv"
FIGURE = ROOT / "docs" / "figures" / "metric_power.png"
TABLE = marked(r"metric power (?P<name>\w+)")
FOLDS = [f"fold{fold}" for fold in range(5)]

SECONDS = 4.0
NOISE = {"noise, 20 dB": 20, "noise, 10 dB": 10}
"""Decibels of sound over white noise."""
SEED = 0
RULE = 1
"""Goes up when mixes are made otherwise; what was heard before is then heard again."""

SIZES = (8, 16, 32, 64, 128, 256)
DRAWS = {"items": 1000, "FAD": 200, "KAD": 200}
"""Draws of items for measures that are means over items, and for those of sets."""
TESTED = {"FAD": 40, "KAD": 200}
"""Of these, draws that are tested."""
TESTED_LARGE = 24
"""Draws of 256 items on which FAD is tested."""
BOOTSTRAP = Bootstrap()
GOAL = 0.8

SAME, AGAIN = "same sources", "same sources, another mix"
CONTRASTS = (
    (SAME, "one missing"),
    (SAME, "one of a near class"),
    (SAME, "one of another class"),
    (SAME, "shuffled"),
    (SAME, "noise, 20 dB"),
    (SAME, "noise, 10 dB"),
    ("one missing", "one of another class"),
    ("one of another class", "shuffled"),
    ("noise, 20 dB", "noise, 10 dB"),
)
METRICS = ("SSMS", "CLIP score", "CLIP score, told", "FAD", "KAD", "paired KL", "cosine")


# ---------------------------------------------------------------- mixes


class Library:
    """The bank's sounds of things, at the encoder's rate.

    Args:
        bank: real sounds.
        things: pairs whose sounds are wanted.
        sample_rate: samples per second.
    """

    def __init__(self, bank: Bank, things: Sequence[Thing], sample_rate: int) -> None:
        self.sample_rate = sample_rate
        files = {sound.file: sound for sound in bank.sounds}
        embeddings = dict(zip(files, normalize(torch.from_numpy(bank.embeddings[:, 0]).float(), dim=-1), strict=True))
        groups: dict[str, list[str]] = defaultdict(list)
        for sound in bank.sounds:
            groups[sound.group].append(sound.file)
        self.recording: dict[str, str] = {}
        self.recordings: dict[str, list[str]] = {}
        for thing in things:
            own = groups[str(thing.group)]
            if own:  # the bank has a thing's sound once, whatever picture it is of: the nearest of its group
                wanted = normalize(thing.audio, dim=0)
                nearest = max(own, key=lambda file: float(embeddings[file] @ wanted))
                self.recording[thing.key] = nearest
                label = files[nearest].label
                self.recordings[thing.key] = [each for each in own if files[each].label == label]
        used = {file for own in self.recordings.values() for file in own}
        self._waveforms = {
            file: load_audio((bank.folder / file).read_bytes(), file, sample_rate) for file in sorted(used)
        }

    def reference(self, thing: Thing, generator: np.random.Generator) -> np.ndarray:
        """Gives a stretch of a thing's own recording, float32 [samples]."""
        return self._stretch(self.recording[thing.key], generator)

    def generated(self, thing: Thing, generator: np.random.Generator) -> np.ndarray:
        """Gives another recording of the thing, where the bank has one, else another stretch: float32 [samples]."""
        own = self.recording[thing.key]
        others = [file for file in self.recordings[thing.key] if file != own] or [own]
        return self._stretch(str(generator.choice(others)), generator)

    def _stretch(self, file: str, generator: np.random.Generator) -> np.ndarray:
        waveform, samples = self._waveforms[file], round(SECONDS * self.sample_rate)
        if len(waveform) < samples:
            waveform = np.roll(waveform, -int(generator.integers(len(waveform))))
        return set_level(fit_length(waveform, samples, generator.random()), 0.0)


@dataclass(frozen=True)
class Pool:
    """Scenes, and what may take the place of one of their things.

    Attributes:
        scenes: of two things or more.
        things: all that are in the bank.
        classes: of each thing, by key.
    """

    scenes: list[Composition]
    things: list[Thing]
    classes: dict[str, str]

    def others(self, scene: Composition, thing: Thing, near: bool) -> list[Thing]:
        """Lists things of the same class but another name, or of another class, none of a group of the scene."""
        groups = {each.group for each in scene.things}
        names = {each.name for each in scene.things}
        same = self.classes[thing.key]
        return [
            each
            for each in self.things
            if each.group not in groups and each.name not in names and (self.classes[each.key] == same) == near
        ]


def read_pool() -> tuple[Pool, Library]:
    """Reads the demo's scenes of two things or more whose sounds are in the bank, and these sounds."""
    every = [thing for fold in FOLDS for thing in read_things(PAIRS, fold)]
    library = Library(read_bank(Path(BANK)), every, YAMNet.sample_rate)
    things = [thing for thing in every if thing.key in library.recording]
    scenes = [scene for fold in FOLDS for scene in read_compositions(SCENES, fold, things) if len(scene.things) > 1]
    return Pool(scenes, things, read_classes()), library


def read_classes() -> dict[str, str]:
    """Reads each pair's class, by its key."""
    found: dict[str, str] = {}
    for fold in FOLDS:
        data = ShardDataset(PAIRS, fold)
        names, rows = data.manifest.classes, data.columns()
        found.update(zip(rows["key"], (names[int(number)] for number in rows["class_index"]), strict=True))
    return found


def mixes(scene: Composition, pool: Pool, library: Library, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Mixes a scene's reference and the methods' sounds, float32 [samples] each; all but the shuffled one."""
    things = scene.things
    own = [library.generated(thing, generator) for thing in things]
    place = int(generator.integers(len(things)))

    def with_other(near: bool) -> np.ndarray:
        candidates = pool.others(scene, things[place], near)
        other = library.generated(candidates[int(generator.integers(len(candidates)))], generator)
        return mix(np.stack([*own[:place], other, *own[place + 1 :]]))

    best = mix(np.stack(own))
    noise = generator.standard_normal(len(best)).astype(np.float32) * np.sqrt(np.mean(best**2))
    return {
        "reference": mix(np.stack([library.reference(thing, generator) for thing in things])),
        SAME: best,
        AGAIN: mix(np.stack([library.generated(thing, generator) for thing in things])),
        "one missing": mix(np.stack([*own[:place], *own[place + 1 :]])),
        "one of a near class": with_other(near=True),
        "one of another class": with_other(near=False),
        **{name: best + noise * np.float32(10 ** (-ratio / 20)) for name, ratio in NOISE.items()},
    }


def shuffled_order(scenes: Sequence[Composition]) -> list[int]:
    """Gives each scene another one whose things are all other ones: each scene is given about once."""
    order = np.random.default_rng(SEED).permutation(len(scenes)).tolist()
    names = [{thing.name for thing in scene.things} for scene in scenes]
    chosen = [0] * len(scenes)
    for position, number in enumerate(order):
        following = [*order[position + 1 :], *order[:position]]
        chosen[number] = next(other for other in following if names[number].isdisjoint(names[other]))
    return chosen


def hear(folder: Path, pool: Pool, library: Library) -> dict[str, Tensor]:
    """Hears all mixes, [P, width] each; they are kept in the folder, and read from there the next time."""
    file = folder / "heard.safetensors"
    made_of = json.dumps([RULE, SEED, SECONDS, YAMNet.identity, [scene.scene.key for scene in pool.scenes]])
    if file.exists():
        with safe_open(file, "pt") as opened:
            if opened.metadata() == {"made_of": made_of}:
                return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # no dictionary
    encoder = YAMNet(threads=1)
    heard: dict[str, list[Tensor]] = defaultdict(list)
    for number, scene in enumerate(pool.scenes):
        sounds = mixes(scene, pool, library, np.random.default_rng([SEED, number]))
        for name, embedding in zip(sounds, encoder.encode([*sounds.values()]), strict=True):
            heard[name].append(embedding)
    found = {name: torch.stack(rows) for name, rows in heard.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(found, file, {"made_of": made_of})
    return found


# ---------------------------------------------------------------- metrics


class Translator:
    """Translates sounds to the space of pictures by ridge regression, as the demo's CLIP score does.

    Args:
        told: fit it on all scenes. Else, as everywhere in the project, each scene's translator has not seen its fold.
    """

    def __init__(self, told: bool) -> None:
        rows = {}
        for fold in FOLDS:
            columns = ShardDataset(SCENES, fold).columns()
            directions, there = normalize(columns["sources"].float(), dim=-1), columns["valid"].unsqueeze(-1)
            seen = (directions * there).sum(1) / there.sum(1)
            rows[fold] = normalize(columns["audio"].float(), dim=-1), seen
        self._of_fold = {fold: _ridge([rows[each] for each in FOLDS if told or each != fold]) for fold in FOLDS}

    def __call__(self, audio: Tensor, scenes: Sequence[Composition]) -> Tensor:
        """Translates a sound of each scene, [P, audio width] to [P, visual width]."""
        rows = zip(normalize(audio, dim=-1), scenes, strict=True)
        return torch.stack([self._of_fold[scene.scene.key.split("-")[1]](row) for row, scene in rows])


def _ridge(parts: Sequence[tuple[Tensor, Tensor]]) -> LinearMap:
    regression = RidgeRegression(parts[0][0].shape[1], parts[0][1].shape[1])
    for audio, visual in parts:
        regression.update(audio, visual)
    return regression.fit()


def item_measures(
    scenes: Sequence[Composition], reference: Tensor, head: LabelHead
) -> dict[str, Callable[[Tensor], Tensor]]:
    """Gives the measures of items: from what is heard, [P, width], to values of which higher ones are better, [P]."""
    scores = head.scores(reference)
    most = max(len(scene.things) for scene in scenes)
    pictures = torch.zeros(len(scenes), most, scenes[0].things[0].visual.shape[-1])
    visible = torch.zeros(len(scenes), most, dtype=torch.bool)
    for row, scene in enumerate(scenes):
        for place, source in enumerate(scene.scene.sources):
            assert source.visual is not None, "every source of a composed picture is seen"
            pictures[row, place], visible[row, place] = source.visual, True
    fair, told = Translator(told=False), Translator(told=True)
    return {
        "SSMS": lambda heard: sound_source_matching_score(head.scores(heard), scores, reduction="none"),
        "CLIP score": lambda heard: clip_score(fair(heard, scenes), pictures, visible, "none"),
        "CLIP score, told": lambda heard: clip_score(told(heard, scenes), pictures, visible, "none"),
        "paired KL": lambda heard: -paired_kl(head.scores(heard), scores, reduction="none"),
        "cosine": lambda heard: row_cosine(heard, reference),
    }


# ---------------------------------------------------------------- power


@dataclass(frozen=True)
class Result:
    """A row of the table of results; the last fields are those of :class:`lightning_ss2a.evaluation.power.Power`.

    Attributes:
        metric: which.
        better: a method.
        worse: a method that is worse; the same one: sounds of two equal methods, exchanged at random.
        items: in each draw.
    """

    metric: str
    better: str
    worse: str
    items: int
    ahead: float
    significant: float
    reversed: float
    draws: int
    tested: int


def results_of_items(values: dict[str, dict[str, np.ndarray]], pool: int) -> Iterator[Result]:
    """Measures the power of measures of items, given the value of each item, [P], by metric and method."""
    for items in SIZES:
        drawn, counts = _drawn(pool, items, DRAWS["items"]), resampling(items, BOOTSTRAP.resamples, BOOTSTRAP.seed)
        exchanged = draw_exchanges(len(drawn), items, SEED + 1)
        for metric, of in values.items():
            for better, worse in CONTRASTS:
                found = power_of_items(of[better], of[worse], drawn, counts)
                yield _result(metric, better, worse, items, found)
            yield _result(metric, SAME, SAME, items, power_of_items(of[SAME], of[AGAIN], drawn, counts, exchanged))


def results_of_sets(metric: str, heard: dict[str, Tensor]) -> Iterator[Result]:
    """Measures the power of FAD or KAD on what is heard, [P, width] by method."""
    reference = heard["reference"]
    bandwidth = median_distance(reference.double())

    def scores(generated: Tensor, rows: Tensor, counts: np.ndarray) -> np.ndarray:
        if metric == "FAD":
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "FAD of")  # biased, but all sets are of one size
                return scores_of_set(FAD("yamnet"), generated, rows, counts)
        return scores_of_set(KAD("yamnet", bandwidth), generated, rows, counts)

    for items in SIZES:
        drawn = torch.from_numpy(_drawn(len(reference), items, DRAWS[metric]))
        exchanged = torch.from_numpy(draw_exchanges(len(drawn), items, SEED + 1))[..., None]
        tested = TESTED_LARGE if metric == "FAD" and items == SIZES[-1] else TESTED[metric]
        every = resampling(items, BOOTSTRAP.set_resamples, BOOTSTRAP.seed)
        found: dict[str, list[np.ndarray]] = defaultdict(list)
        for number, rows in enumerate(drawn):
            counts = every if number < tested else every[:0]
            sets = {name: own[rows] for name, own in heard.items() if name not in ("reference", AGAIN)}
            both = heard[SAME][rows], heard[AGAIN][rows]
            sets["first"], sets["second"] = (torch.where(exchanged[number], *ordered) for ordered in (both, both[::-1]))
            for name, own in sets.items():
                found[name].append(-scores(own, reference[rows], counts))
        for better, worse in (*CONTRASTS, ("first", "second")):
            differences = [one - other for one, other in zip(found[better], found[worse], strict=True)]
            measured = power([each[0] for each in differences], [each[1:] for each in differences[:tested]])
            null = better == "first"
            yield _result(metric, SAME if null else better, SAME if null else worse, items, measured)


def _drawn(pool: int, items: int, draws: int) -> np.ndarray:
    return draw_items(pool, items, draws, SEED)


def _result(metric: str, better: str, worse: str, items: int, found: Power) -> Result:
    return Result(metric, better, worse, items, *astuple(found))


def measure(folder: Path) -> list[Result]:
    """Measures everything."""
    pool, library = read_pool()
    heard = hear(folder, pool, library)
    heard["shuffled"] = heard[SAME][shuffled_order(pool.scenes)]
    head = YAMNet(threads=1).label_head()
    assert head is not None, "YAMNet names what it hears"
    measures = item_measures(pool.scenes, heard["reference"], head)
    values = {
        metric: {name: of(own).double().numpy() for name, own in heard.items() if name != "reference"}
        for metric, of in measures.items()
    }
    means = {metric: {name: round(float(own.mean()), 3) for name, own in of.items()} for metric, of in values.items()}
    print(json.dumps({"scenes": len(pool.scenes), "things": len(pool.things), **means}, indent=1))
    results = [*results_of_items(values, len(pool.scenes))]
    for metric in ("KAD", "FAD"):
        results += results_of_sets(metric, heard)
    return results


# ---------------------------------------------------------------- the page


class Page:
    """Tables and figure of results.

    Args:
        results: of all metrics, contrasts and numbers of items.
    """

    def __init__(self, results: Sequence[Result]) -> None:
        self._of = {(each.metric, each.better, each.worse, each.items): each for each in results}

    def needed(self) -> str:
        """Fewest items from which on a metric tells the better method in so many draws."""
        return markdown_table(
            ["better > worse", *METRICS],
            [[f"{a} > {b}", *(self._needed(metric, a, b) for metric in METRICS)] for a, b in CONTRASTS],
        )

    def _needed(self, metric: str, better: str, worse: str) -> str:
        enough = [self._of[metric, better, worse, items].significant >= GOAL for items in SIZES]
        from_here = [items for place, items in enumerate(SIZES) if all(enough[place:])]
        if from_here:
            return str(from_here[0])
        last = self._of[metric, better, worse, SIZES[-1]]
        return f"– ({last.significant:.2f})" if last.reversed < 0.5 else f"wrong ({last.reversed:.2f})"

    def ahead(self) -> str:
        """Part of the draws of 32 items in which the better method is ahead."""
        return markdown_table(
            ["better > worse", *METRICS],
            [[f"{a} > {b}", *(f"{self._of[m, a, b, 32].ahead:.2f}" for m in METRICS)] for a, b in CONTRASTS],
        )

    def false(self) -> str:
        """Part of the draws in which equal methods are found to differ, either way."""
        found = {(m, items): self._of[m, SAME, SAME, items] for m in METRICS for items in SIZES}
        return markdown_table(
            ["items", *METRICS],
            [
                [str(items), *(f"{found[m, items].significant + found[m, items].reversed:.2f}" for m in METRICS)]
                for items in SIZES
            ],
        )

    def draw(self, file: Path) -> None:
        """Draws the power against the number of items."""
        figure = new_figure(11, 6.4)
        panels = figure.subplots(2, 5, sharex=True, sharey=True).flat
        for axes, (better, worse) in zip(panels, (*CONTRASTS, (SAME, SAME)), strict=True):
            for number, metric in enumerate(METRICS):
                own = [self._of[metric, better, worse, items] for items in SIZES]
                null = better == worse
                parts = [each.significant + (each.reversed if null else 0) for each in own]
                style = {"linestyle": "--" if "told" in metric else "-", "marker": "osd^vPX"[number]}
                axes.plot(SIZES, parts, label=metric, color=f"C{number}", markersize=4, linewidth=1.3, **style)
            chance = 0.05 if null else 0.025
            axes.axhline(chance, color="black", linestyle=":", linewidth=1)
            axes.set_xscale("log", base=2)
            axes.set_xticks(SIZES, [str(items) for items in SIZES])
            axes.set_title("two equal methods" if null else f"{better}\n> {worse}", fontsize=9)
            axes.set_ylim(-0.03, 1.03)
            axes.grid(alpha=0.3)
        for axes in figure.axes[5:]:
            axes.set_xlabel("items")
        figure.supylabel("part of the draws that are significant", fontsize=10)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(METRICS), fontsize=9)
        figure.savefig(file, dpi=90, metadata={"Software": ""}, pil_kwargs={"optimize": True})


def read_results(file: Path = RESULTS) -> list[Result]:
    """Reads the table of results."""
    with open(file, newline="", encoding="utf-8") as opened:
        return [
            Result(**{each.name: each.type(row[each.name]) for each in fields(Result)})  # type: ignore[operator]
            for row in csv.DictReader(opened)
        ]


def filled(text: str, page: Page) -> str:
    """Fills the tables of a page's text."""
    return fill_marked(text, TABLE, lambda found: f"{getattr(page, found['name'])()}\n")


def main() -> None:
    """Measures and fills."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="of what is heard; none: nothing is measured")
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    if folder is not None:
        rows = [
            [round(cell, 4) if isinstance(cell, float) else cell for cell in astuple(row)] for row in measure(folder)
        ]
        write_whole(RESULTS, csv_text([each.name for each in fields(Result)], rows))
    page = Page(read_results())
    write_whole(PAGE, filled(PAGE.read_text(encoding="utf-8"), page))
    page.draw(FIGURE)


if __name__ == "__main__":
    main()
