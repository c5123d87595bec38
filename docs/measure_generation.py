"""Measures what ``ss2a generate`` reaches on the demo's held-out things, and fills the tables of the pages.

    python docs/measure_generation.py runs/generation              # all folds; trains what is missing; an hour
    python docs/measure_generation.py runs/generation --folds 3    # one fold, for example in a process of its own
    python docs/measure_generation.py runs/generation --folds      # none: fills the tables from what was measured

Of each fold a manifold, a Remixer and a V2A-Mapper are trained on the other four; their last checkpoint is taken, since
the best one is chosen by what is held out. The bank is restricted to the same four folds. What is heard in each sound
goes to ``heard_FOLD.json`` beside the runs; a table stands between ``<!-- measured NAME -->`` and ``<!-- end -->``.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_ss2a.analysis.heard_classes import HeardRate, heard_rate, interval_over_groups, wanted_labels
from lightning_ss2a.analysis.produced_sounds import (
    Composition,
    Heard,
    OneEmbedding,
    Studio,
    Thing,
    TrueSounds,
    one_of_each,
    read_compositions,
    read_things,
)
from lightning_ss2a.builders.engine.module import Outcome, each_or_reason
from lightning_ss2a.checkpoints import read_checkpoint
from lightning_ss2a.cli.models import load_part
from lightning_ss2a.config_files import read_config
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import write_whole
from lightning_ss2a.generation.listening import Tagger
from lightning_ss2a.generation.mixing.methods import MapperMixer, MeanMixer, Mixer, OracleMixer, SS2AMixer
from lightning_ss2a.generation.options import SoundOptions
from lightning_ss2a.generation.scene.labels import LabelMeanings, Unwanted
from lightning_ss2a.generation.scene.source import Scene, Source
from lightning_ss2a.generation.sound_bank import SoundBank
from lightning_ss2a.generation.sound_bank.generator import RetrievalOptions
from lightning_ss2a.generation.trained import load_trained
from lightning_ss2a.perception import YAMNet
from lightning_ss2a.tables import fill_marked, marked
from lightning_ss2a.training import V2AMapperModule

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "generation.md", ROOT / "docs" / "sound_bank.md")
LITE = ROOT / "configs" / "perception" / "lite.yaml"
PAIRS, SCENES, BANK = "shards/demo", "shards/demo_scenes", "shards/bank"
FOLDS = range(5)
SECONDS = 4.0
MOST_SCENES = 24
"""Of each number of things in each fold."""
OPTIONS = SoundOptions()

TABLE = marked(r"measured (?P<name>\w+)")


@dataclass(frozen=True)
class Record:
    """What is heard in one sound.

    Attributes:
        measure: the table that it belongs to.
        way: how it was made.
        key: of the item.
        groups: of all things that the item is made of.
        names: of the things, the one that is asked about last where there is one.
        labels: top labels; empty: there is no sound.
        cosine: of the sound to the mixed embedding that was wanted.
        real: of the sound to that of the real one.
        sounds: files of the bank that it is made of.
        unwanted: probability of what must not be heard.
    """

    measure: str
    way: str
    key: str
    groups: tuple[int, ...]
    names: tuple[str, ...]
    labels: tuple[str, ...]
    cosine: float = 0.0
    real: float = 0.0
    sounds: tuple[str, ...] = ()
    unwanted: float = 0.0


class MapperOfPictures(MapperMixer):
    """The V2A-Mapper, which tells the bank what it makes of pictures, since it hears no sounds.

    Args:
        module: the mapper.
        pictures: those that it was trained on, float32 [N, V].
    """

    def __init__(self, module: V2AMapperModule, pictures: torch.Tensor) -> None:
        super().__init__(module)
        self.pictures = pictures

    @torch.no_grad()
    def predict_sounds(self, audio: torch.Tensor) -> torch.Tensor:
        """Maps the pictures."""
        batch = {"global_visual": self.pictures, "key": [str(number) for number in range(len(self.pictures))]}
        return self.module.predict_audio(batch, seed=0).float()


class Fold:
    """What one fold is measured by: modules that have not seen it, a bank without it, and its things.

    Args:
        number: of the fold.
        runs: folder of the runs.
        checkpoint: ``last``, or ``best``, which is chosen by the fold itself.
    """

    def __init__(self, number: int, runs: Path, checkpoint: str) -> None:
        self.split, self.runs, self.checkpoint = f"fold{number}", runs / f"fold{number}", checkpoint
        manifold = self._trained("manifold", number)
        self.remixer = load_trained(
            "remixer", self._trained("remixer", number, "--model.manifold_checkpoint", manifold)
        ).module
        trained_on = [thing.visual for fold in FOLDS if fold != number for thing in read_things(PAIRS, f"fold{fold}")]
        mapper = load_trained("mapper", self._trained("v2a_mapper", number)).module
        self.mapped = MapperOfPictures(mapper, torch.stack(trained_on))
        self.encoder = YAMNet(threads=1)
        self.wanted = wanted_labels()
        self.every = read_things(PAIRS, self.split)
        self.things = one_of_each(self.every, self.wanted)
        self.studio, self.nearest = self._studio(RetrievalOptions()), self._studio(RetrievalOptions(candidates=1))

    def _trained(self, stage: str, fold: int, *more: str) -> str:
        run = self.runs / stage / "version_0"
        if not (run / "checkpoints" / "last.ckpt").exists():
            command = [str(Path(sys.executable).with_name("lightning")), "fit", "-c", f"configs/{stage}.yaml"]
            logger = "--trainer.logger.init_args"
            command += ["--data.fold", str(fold), f"{logger}.save_dir", str(self.runs), f"{logger}.version", "0", *more]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        last, epochs = run / "checkpoints" / "last.ckpt", read_config(run / "config.yaml")["trainer"]["max_epochs"]
        if (done := read_checkpoint(str(last), stage)["epoch"] + 1) < epochs:
            raise InputError(f"{run}: {done} of {epochs} epochs are trained; remove it, to train it again")
        return str(run / "checkpoints" / f"{self.checkpoint}.ckpt")

    def _studio(self, retrieval: RetrievalOptions) -> Studio:
        others = [f"fold{fold}" for fold in FOLDS if f"fold{fold}" != self.split]
        return Studio(SoundBank(BANK, self.encoder, splits=others, retrieval=retrieval), self.encoder, SECONDS)

    # ---------------------------------------------------------------- what is measured

    def measure(self) -> list[Record]:
        """Measures everything."""
        return [*self.one_thing(), *self.composed(), *self.added(), *self.dropped(), *self.left_out()]

    @property
    def ss2a(self) -> Mixer:
        """The method ``ss2a``."""
        return SS2AMixer(self.remixer)

    def one_thing(self) -> Iterable[Record]:
        """Pictures of one thing."""
        mixers: dict[str, Mixer] = {
            "ss2a": self.ss2a,
            "mean": MeanMixer(self.remixer.manifold),
            "ss2a, one embedding": OneEmbedding(self.ss2a),
            "v2a_mapper": self.mapped,
            "oracle": OracleMixer(),
        }
        for way, mixer in mixers.items():
            alone = [Scene(thing.key, (thing.heard(),)) for thing in self.things]
            scenes = alone if way == "oracle" else [thing.scene() for thing in self.things]
            for thing, heard in zip(self.things, self.studio.hear(scenes, mixer), strict=True):
                yield _record("one", way, thing.key, [thing], heard, thing.audio)

    def compositions(self) -> list[Composition]:
        """Composed pictures of two and three things whose own labels are different ones, the first of each number."""
        known = [thing for thing in self.every if thing.name in self.wanted]
        apart = [each for each in read_compositions(SCENES, self.split, known) if self._apart(each.things)]
        return [each for count in (2, 3) for each in [own for own in apart if len(own.things) == count][:MOST_SCENES]]

    def _apart(self, things: Sequence[Thing]) -> bool:
        own = [self.wanted[thing.name].labels or self.wanted[thing.name].parents for thing in things]
        return len(frozenset().union(*own)) == sum(map(len, own))

    def composed(self) -> Iterable[Record]:
        """Composed pictures."""
        compositions = self.compositions()
        mean = MeanMixer(self.remixer.manifold)
        ways: dict[str, tuple[Studio, Mixer]] = {
            "ss2a": (self.studio, self.ss2a),
            "mean": (self.studio, mean),
            "nearest": (self.nearest, mean),
            "v2a_mapper": (self.studio, self.mapped),
            "ss2a, one embedding": (self.studio, OneEmbedding(self.ss2a)),
            "mean, one embedding": (self.studio, OneEmbedding(mean)),
            "true sounds": (self.studio, TrueSounds(compositions)),
            "true mixture, one embedding": (self.studio, OneEmbedding(TrueSounds(compositions))),
        }
        for way, (studio, mixer) in ways.items():
            heard = studio.hear([each.scene for each in compositions], mixer)
            for each, own in zip(compositions, heard, strict=True):
                yield _record(f"composed{len(each.things)}", way, each.scene.key, each.things, own, each.audio)

    def added(self) -> Iterable[Record]:
        """Pictures of one thing, to which the sound of another, or its name as a text, is added."""
        others = [self._other(thing) for thing in self.things]
        both = list(zip(self.things, others, strict=True))
        yield from self._heard("sound", both, [thing.scene(other.heard()) for thing, other in both])
        names = [_words(other.name) for other in others]
        for way, texts in {"text": self._as_sounds(names), "text as picture": self._as_pictures(names)}.items():
            read = [(pair, text) for pair, text in zip(both, texts, strict=True) if isinstance(text, Source)]
            scenes = [thing.scene(text) for (thing, _), text in read]
            yield from self._heard(way, [pair for pair, _ in read], scenes)
        plain = [thing.scene() for thing, _ in both]
        yield from self._heard("alone", both, plain)

    def _heard(self, way: str, pairs: Sequence[tuple[Thing, Thing]], scenes: Sequence[Scene]) -> Iterable[Record]:
        for (thing, other), own in zip(pairs, self.studio.hear(scenes, self.ss2a), strict=True):
            yield _record("added", way, thing.key, [thing, other], own, other.audio)

    def _other(self, thing: Thing) -> Thing:
        """The next thing in the list that is called otherwise, half the list away."""
        start = self.things.index(thing) + len(self.things) // 2
        turned = [self.things[(start + step) % len(self.things)] for step in range(len(self.things))]
        return next(other for other in turned if other.group != thing.group and self._apart([thing, other]))

    def _as_sounds(self, texts: Sequence[str]) -> list[Outcome[Source]]:
        """Sources that sound like texts, by the sound prior; or why one is refused."""
        prior = load_part("sound_prior", read_config(LITE)["sound_prior"], LITE)
        found = zip(texts, each_or_reason(prior.predict, texts), strict=True)
        return [one if isinstance(one, InputError) else Source("text", text, audio=one) for text, one in found]

    def _as_pictures(self, texts: Sequence[str]) -> list[Outcome[Source]]:
        """Sources that look like texts, by the prior; or why one is refused."""
        prior = load_part("prior", read_config(LITE)["prior"], LITE)
        read = each_or_reason(lambda own: prior.predict(prior.text_encoder.features(own)), texts)
        found = zip(texts, read, strict=True)
        return [one if isinstance(one, InputError) else Source("text", text, visual=one) for text, one in found]

    def dropped(self) -> Iterable[Record]:
        """Composed pictures of two things, with the second and without it, where its place in the picture is empty."""
        pairs = [each for each in self.compositions() if len(each.things) == 2]
        kept = [Scene(each.scene.key, each.scene.sources[:1], each.scene.sources[0].visual) for each in pairs]
        for way, scenes in {"both": [each.scene for each in pairs], "one": kept}.items():
            for each, own in zip(pairs, self.studio.hear(scenes, self.ss2a), strict=True):
                yield _record("dropped", way, each.scene.key, each.things, own, each.things[1].audio)

    def left_out(self) -> Iterable[Record]:
        """Composed pictures of two things, ``--without`` the second one's class."""
        meanings = LabelMeanings.with_minilm()
        for each in (each for each in self.compositions() if len(each.things) == 2):
            wanted = self.wanted[each.things[1].name]
            unwanted = Unwanted.of_words(sorted(wanted.labels or wanted.parents), meanings)
            first, second = each.scene.sources
            if unwanted.word_for(first) is not None:  # the word means both
                continue
            left_out = () if unwanted.word_for(second) is not None else (second,)
            (before,) = self.studio.hear([each.scene], self.ss2a)
            kept = Scene(each.scene.key, (first, *left_out), each.scene.global_visual if left_out else first.visual)
            tagger = Tagger(self.encoder, unwanted, OPTIONS.threshold)
            (after,) = self.studio.hear([kept], self.ss2a, tagger, OPTIONS.candidates)
            listener = Tagger(self.encoder, unwanted, 1e-3)
            for way, own in {"before": before, "after": after}.items():
                made = _record("without", way, each.scene.key, each.things, own, each.things[1].audio)
                heard = {}
                if isinstance(own, Heard):
                    heard = listener.hears(own.sounded.rendering.waveform, self.studio.generator.sample_rate)
                yield replace(made, unwanted=max(heard.values(), default=0.0))


def _words(name: str) -> str:
    return name.replace("lincity_", "").replace("_", " ")


def _record(
    measure: str, way: str, key: str, things: Sequence[Thing], heard: Outcome[Heard], real: torch.Tensor
) -> Record:
    groups, names = tuple(thing.group for thing in things), tuple(thing.name for thing in things)
    if isinstance(heard, InputError):
        return Record(measure, way, key, groups, names, ())
    cosines = [float(torch.cosine_similarity(heard.embedding, other, dim=0)) for other in (heard.wanted, real)]
    sounds = tuple(sound["file"] for sound in heard.sounded.rendering.details["sounds"])
    return Record(measure, way, key, groups, names, heard.labels, *cosines, sounds)


# -------------------------------------------------------------------- tables


class Tables:
    """The pages' tables, by name.

    Args:
        records: of all folds.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self.records, self.wanted = records, wanted_labels()

    def of(self, measure: str, way: str) -> dict[str, Record]:
        """Picks records by key."""
        return {each.key: each for each in self.records if (each.measure, each.way) == (measure, way)}

    # ------------------------------------------------------------ pictures of one thing

    def one_line(self) -> str:
        """The first row of the table of one thing, as a sentence."""
        records = [*self.of("one", "ss2a").values()]
        rate = self.rate(records, parents=True)
        low, high = rate.interval
        gain = rate.matched - rate.shuffled
        return (
            "Sounded by `ss2a generate` with the bank of real sounds, held-out pictures of one thing have their own "
            f"class\nor its parent among YAMNet's top 10 labels in {rate.matched:.0%} of cases, shuffled pictures in "
            f"{rate.shuffled:.0%}:\ndifference {gain:.3f}, 95 % interval [{low:.3f}, {high:.3f}], "
            f"{rate.items} pictures\n([docs/generation.md](docs/generation.md#what-it-reaches)).\n"
        )

    def rate(self, records: Sequence[Record], parents: bool) -> HeardRate:
        """How often the first thing of each record is heard."""
        names, groups = [each.names[0] for each in records], [each.groups[0] for each in records]
        return heard_rate(names, groups, [each.labels for each in records], self.wanted, parents)

    def one_thing(self) -> str:
        """Own class against shuffled pictures."""
        rows = []
        said = {
            "ss2a": "`ss2a` (Remixer), `mean`",
            "ss2a, one embedding": "`ss2a`, the mixed embedding alone",
            "v2a_mapper": "`v2a_mapper`",
            "oracle": "`oracle`: the true sound's embedding",
        }
        for way, text in said.items():
            for parents, judged in ((True, "class or parent"), (False, "class")):
                records = [*self.of("one", way).values()]
                rate = self.rate(records, parents)
                rows.append(
                    [text, judged, f"{rate.matched:.3f}", f"{rate.shuffled:.3f}",
                     _estimate(rate.matched - rate.shuffled, rate.interval)]
                )  # fmt: skip
        first = self.of("one", "ss2a")
        groups = {each.groups for each in first.values()}
        title = f"{len(first)} pictures, {len(groups)} groups"
        return _table([title, "heard", "matched", "shuffled", "difference, 95 %"], rows)

    # ------------------------------------------------------------ composed pictures

    def composed(self) -> str:
        """All things of composed pictures."""
        said = {
            "ss2a": "`ss2a`", "mean": "`mean`", "v2a_mapper": "`v2a_mapper`",
            "ss2a, one embedding": "`ss2a`, the mixed embedding alone",
            "mean, one embedding": "`mean`, the mixed embedding alone",
            "true sounds": "the true sounds' embeddings",
            "true mixture, one embedding": "the true mixture's embedding alone",
        }  # fmt: skip
        rows = []
        for count in (2, 3):
            measure = f"composed{count}"
            own = self.of(measure, "ss2a")
            for way, text in said.items():
                other = self.of(measure, way)
                cells = [f"{count} things, {len(own)} scenes: {text}"]
                for score in (self.all_heard, self.part_heard, self.part_itself):
                    cells.append(f"{np.mean([score(each) for each in other.values()]):.3f}")
                cells.append("" if way == "ss2a" else self.gain(own, other, self.all_heard))
                cells.append("" if way == "ss2a" else self.gain(own, other, self.part_heard))
                rows.append(cells)
            alone, mapper = self.of(measure, "ss2a, one embedding"), self.of(measure, "v2a_mapper")
            gains = [self.gain(alone, mapper, score) for score in (self.all_heard, self.part_heard)]
            rows.append(
                [f"{count} things: `ss2a`, the mixed embedding alone, leads `v2a_mapper` by", "", "", "", *gains]
            )
        return _table(
            ["", "all heard", "part heard", "part, class alone", "`ss2a` leads by: all", "`ss2a` leads by: part"], rows
        )

    def steering(self) -> str:
        """Whether it helps that the mix decides."""
        scores: dict[str, Callable[[Record], float]] = {
            "cosine of the sound to the wanted embedding": lambda each: each.cosine,
            "cosine to that of the real mixture": lambda each: each.real,
            "part of the things that are heard": self.part_heard,
            "all of them heard": self.all_heard,
        }
        near = self.of("composed2", "nearest") | self.of("composed3", "nearest")
        more = self.of("composed2", "mean") | self.of("composed3", "mean")
        rows = []
        for text, score in scores.items():
            cells = [f"{np.mean([score(each) for each in own.values()]):.3f}" for own in (near, more)]
            rows.append([text, *cells, self.gain(more, near, score)])
        return _table([f"{len(near)} scenes", "nearest alone", "3 candidates", "gain, 95 %"], rows)

    # ------------------------------------------------------------ composition

    def composition(self) -> str:
        """What adding and dropping do."""
        rows = []
        for way, text in (
            ("sound", "a sound is added"),
            ("text", "a text is added, read as a sound"),
            ("text as picture", "a text is added, read as a picture"),
        ):
            after = self.of("added", way)
            before = {key: own for key, own in self.of("added", "alone").items() if key in after}
            rows += self._change(f"{text}: its class", before, after, -1)
            rows += self._change(f"{text}: the picture's class", before, after, 0)
        both, one = self.of("dropped", "both"), self.of("dropped", "one")
        rows += self._change("one of two is dropped: its class", both, one, -1)
        rows += self._change("one of two is dropped: the other's class", both, one, 0)
        return _table(["", "items", "heard before", "heard after", "change, 95 %"], rows)

    def without(self) -> str:
        """What ``--without`` does."""
        before, after = self.of("without", "before"), self.of("without", "after")
        made = {key: own for key, own in after.items() if own.labels}
        same = {key: before[key] for key in made}

        def row(text: str, test: Callable[[Record], bool], then: dict[str, Record] = before) -> list[str]:
            return [text, *(str(sum(map(test, own.values()))) for own in (then, made))]

        rows = [
            ["scenes with a sound", str(len(before)), str(len(made))],
            row(
                f"unwanted class in any 2 s with {OPTIONS.threshold:g} or more",
                lambda each: each.unwanted >= OPTIONS.threshold,
            ),
            row("unwanted class among the top 10", lambda each: self.heard(each, -1, False)),
            row("of the scenes that keep one: unwanted class", lambda each: self.heard(each, -1, False), same),
            row("of the scenes that keep one: the other's class or parent", lambda each: self.heard(each, 0), same),
        ]
        return _table(["", "before", "after"], rows)

    def _change(self, text: str, before: dict[str, Record], after: dict[str, Record], place: int) -> list[list[str]]:
        score = lambda each: float(self.heard(each, place))  # noqa: E731
        rates = [f"{np.mean([score(each) for each in own.values()]):.3f}" for own in (before, after)]
        return [[text, str(len(after)), *rates, self.gain(after, before, score)]]

    # ------------------------------------------------------------ scores

    def heard(self, record: Record, place: int, parents: bool = True) -> bool:
        """Tells whether one thing is heard."""
        return self.wanted[record.names[place]].heard(record.labels, parents)

    def part_heard(self, record: Record) -> float:
        """Part of the things that are heard, by their class or its parent."""
        return float(np.mean([self.heard(record, place) for place in range(len(record.names))]))

    def part_itself(self, record: Record) -> float:
        """Part of the things that are heard, by their class alone."""
        return float(np.mean([self.heard(record, place, False) for place in range(len(record.names))]))

    def all_heard(self, record: Record) -> float:
        """1 if all things are heard, by their class or its parent; else 0."""
        return float(self.part_heard(record) == 1)

    def gain(self, own: dict[str, Record], other: dict[str, Record], score: Callable[[Record], float]) -> str:
        """Mean paired difference, with its interval over groups."""
        gains = np.array([score(own[key]) - score(other[key]) for key in own])
        interval = interval_over_groups(gains, [each.groups for each in own.values()])
        return _estimate(float(gains.mean()), interval)


def _estimate(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|" for line in lines) + "\n"


def fill(tables: Tables) -> None:
    """Fills the tables of the pages."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        filled = fill_marked(text, TABLE, lambda found: getattr(tables, found["name"])())
        if filled != text:
            write_whole(page, filled)


def _read(file: Path) -> list[Record]:
    told: list[dict[str, Any]] = json.loads(file.read_bytes())
    return [Record(**{name: tuple(v) if isinstance(v, list) else v for name, v in each.items()}) for each in told]


def main() -> None:
    """Measures and fills."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of the runs, and of what was measured")
    parser.add_argument("--folds", type=int, nargs="*", choices=FOLDS, default=[*FOLDS], help="measured now")
    parser.add_argument("--checkpoint", choices=("last", "best"), default="last", help="of each run")
    parser.add_argument("--partial", action="store_true", help="fill the tables though folds are missing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for number in options.folds:
        records = Fold(number, options.runs, options.checkpoint).measure()
        write_whole(options.runs / f"heard_{number}.json", json.dumps([asdict(each) for each in records]))
    files = [file for number in FOLDS if (file := options.runs / f"heard_{number}.json").exists()]
    if len(files) < len(FOLDS):
        print(f"{len(files)} of {len(FOLDS)} folds are measured: the tables are filled once all are (--partial: now)")
    if len(files) == len(FOLDS) or (files and options.partial):
        fill(Tables([record for file in files for record in _read(file)]))


if __name__ == "__main__":
    main()
