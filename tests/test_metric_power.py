"""The study of docs/claims/metric_power.md: its mixes are what they are called, its page holds its results."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from lightning_ss2a.analysis.produced_sounds import Composition, Thing

ROOT = Path(__file__).parents[1]
SAMPLES = 4000


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure_metric_power", ROOT / "docs" / "measure_metric_power.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


THINGS = [Thing(name, name, group, torch.ones(2), torch.ones(3)) for group, name in enumerate(("cat", "dog", "car"))]
OTHERS = [Thing(name, name, group, torch.ones(2), torch.ones(3)) for group, name in enumerate(("cow", "bus"), 3)]
CLASSES = {"cat": "animal", "dog": "animal", "cow": "animal", "car": "vehicle", "bus": "vehicle"}


class Tones:
    """Sounds every thing as a tone of its own."""

    names = tuple(CLASSES)

    def generated(self, thing: Thing, generator: np.random.Generator) -> np.ndarray:
        number = self.names.index(thing.name)
        return (0.1 * np.sin(2 * np.pi * (number + 5) * np.arange(SAMPLES) / SAMPLES)).astype(np.float32)

    reference = generated

    def heard(self, sound: np.ndarray) -> set[str]:
        loud = np.abs(np.fft.rfft(sound)) / SAMPLES > 0.01
        return {name for number, name in enumerate(self.names) if loud[number + 5]}


def composition(*things: Thing) -> Composition:
    return Composition(SimpleNamespace(key="-".join(each.name for each in things)), things, torch.ones(3))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(4))
def test_mixes_are_what_they_are_called(study: ModuleType, seed: int):
    tones, scene = Tones(), composition(*THINGS)
    pool = study.Pool([scene], [*THINGS, *OTHERS], CLASSES)
    sounds = study.mixes(scene, pool, tones, np.random.default_rng(seed))
    for name in ("reference", study.SAME, study.AGAIN):
        assert tones.heard(sounds[name]) == {"cat", "dog", "car"}
    [missing] = {"cat", "dog", "car"} - tones.heard(sounds["one missing"])
    kept = {"cat", "dog", "car"} - {missing}
    animal = CLASSES[missing] == "animal"
    assert tones.heard(sounds["one of a near class"]) == kept | {"cow" if animal else "bus"}
    assert tones.heard(sounds["one of another class"]) == kept | {"bus" if animal else "cow"}
    for name, ratio in study.NOISE.items():
        noise = sounds[name] - sounds[study.SAME]
        found = 10 * np.log10(np.mean(sounds[study.SAME] ** 2) / np.mean(noise**2))
        assert found == pytest.approx(ratio, abs=0.5)


def test_a_shuffled_scene_shares_no_thing(study: ModuleType):
    every = [*THINGS, *OTHERS]
    scenes = [composition(first, second) for first in every for second in every if first is not second]
    order = study.shuffled_order(scenes)
    for scene, other in zip(scenes, order, strict=True):
        assert {each.name for each in scene.things}.isdisjoint(each.name for each in scenes[other].things)


def test_tables_of_the_page_are_those_of_the_results(study: ModuleType):
    text = study.PAGE.read_text(encoding="utf-8")
    results = study.read_results()
    assert len(results) == len(study.METRICS) * (len(study.CONTRASTS) + 1) * len(study.SIZES)
    assert set(study.TABLE.findall(text)) == {"needed", "ahead", "false"}
    assert study.filled(text, study.Page(results)) == text
    assert re.search(rf"\]\(\.\./figures/{study.FIGURE.name}\)", text)


def test_few_items_suffice_only_if_more_do_too(study: ModuleType):
    parts = {8: (0.9, 0.0), 16: (0.7, 0.0), 32: (0.8, 0.0), 64: (1.0, 0.0), 128: (1.0, 0.0), 256: (1.0, 0.0)}
    rows = [study.Result("SSMS", "a", "b", items, 1.0, *part, 100, 100) for items, part in parts.items()]
    assert study.Page(rows)._needed("SSMS", "a", "b") == "32"
    never = study.Result("SSMS", "a", "b", 256, 0.1, 0.0, 0.75, 100, 100)
    assert study.Page([*rows, never])._needed("SSMS", "a", "b") == "wrong (0.75)"
