"""How well does the lite stack's detector find sound sources, and do its crops tell them apart?

60 pictures composed of real stamps whose boxes are known, one to three each, on white, on a plain colour and on a
photograph; and 11 photographs of animals, with 21 boxes drawn by hand. All are of the demo's Debian packages, fetched
into .cache/demo unless they are there. Recall and precision at an intersection over union of 0.5, with and without the
name counted; pictures a second on one core. Then EfficientNet-lite0 says what it sees in each crop and in the whole
picture: how often is it what it sees in the stamp alone?

    python benchmarks/detector.py

The ratio is the share of stamps that the crops show over the share that the whole pictures show: what detecting sources
is for.
"""

import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lightning_ss2a.builders.demo import PACKAGES
from lightning_ss2a.builders.packages import unpack_all
from lightning_ss2a.perception import EfficientNetLite, NanoDet
from lightning_ss2a.perception.detectors.crops import pad_to_square, source_crops
from lightning_ss2a.perception.detectors.protocols import Detections
from lightning_ss2a.perception.detectors.suppression import intersection_over_union
from lightning_ss2a.perception.media.qt_resources import open_resources

CACHE = Path(".cache/demo")
PICTURES, SEED, IOU = 60, 0, 0.5
THRESHOLDS = (0.3, 0.4, 0.5)
GOAL_RATIO = 1.5

STAMPS = {
    "elephant": ["animals/mammals/elephant"],
    "giraffe": ["animals/mammals/giraffe"],
    "horse": ["animals/mammals/equines/horse"],
    "zebra": ["animals/mammals/equines/zebra"],
    "bear": ["animals/mammals/bears/bear", "animals/mammals/bears/european-bear"],
    "sheep": ["animals/mammals/bovines/sheep", "animals/mammals/bovines/sheep_lamb"],
    "cow": ["animals/mammals/bovines/cow", "animals/mammals/bovines/cow_white"],
    "dog": ["animals/mammals/dogs/dog"],
    "bird": [
        "animals/birds/duck",
        "animals/birds/rooster",
        "animals/birds/penguin",
        "animals/birds/crow",
        "animals/birds/gander",
        "animals/birds/seagull",
        "animals/birds/heron_greatblue",
    ],
    "apple": ["food/fruit/apple_red"],
    "banana": ["food/fruit/banana"],
    "orange": ["food/fruit/orange"],
    "broccoli": ["food/vegetables/broccoli"],
    "carrot": ["food/vegetables/carrot"],
    "pizza": ["food/pizza"],
    "car": [
        "vehicles/auto/sedan",
        "vehicles/auto/beetle",
        "vehicles/auto/sportscar2",
        "vehicles/emergency/sedan_police",
    ],
    "truck": ["vehicles/auto/truck", "vehicles/garbagetruck", "vehicles/emergency/firetruck"],
    "airplane": ["vehicles/flight/planes/747"],
    "bus": ["vehicles/masstransit/green_korean_bus"],
    "boat": ["vehicles/ship/chineseJunk"],
    "toilet": ["household/toilet"],
    "scissors": ["household/arttools/scissors_small_open"],
    "cup": ["household/dishes/mug"],
    "tennis racket": ["sports/tennis_racket"],
    "sports ball": ["sports/soccer", "sports/basketball"],
    "teddy bear": ["animals/mammals/bears/toys/edward_bear"],
}
"""Files of tuxpaint-stamps-default, by the name that COCO has for what they show."""

BACKGROUNDS = ("bentPyramid", "redPyramid", "montStMichel")
PHOTOGRAPHS: dict[str, list[tuple[str, tuple[int, int, int, int]]]] = {
    "explore_farm_animals/cat": [("cat", (189, 110, 1024, 562))],
    "explore_farm_animals/chicken": [
        ("bird", (42, 121, 222, 518)),
        ("bird", (373, 75, 565, 506)),
        ("bird", (527, 128, 711, 525)),
        ("bird", (716, 133, 991, 597)),
    ],
    "explore_farm_animals/cow": [
        ("cow", (230, 291, 925, 688)),
        ("cow", (266, 176, 426, 278)),
        ("cow", (810, 179, 915, 272)),
    ],
    "explore_farm_animals/dog": [("dog", (33, 28, 905, 728))],
    "explore_farm_animals/duck": [("bird", (122, 208, 819, 858))],
    "explore_farm_animals/horse": [
        ("horse", (124, 210, 364, 553)),
        ("horse", (329, 226, 560, 548)),
        ("horse", (513, 308, 660, 553)),
        ("horse", (586, 231, 905, 560)),
        ("horse", (264, 415, 471, 576)),
    ],
    "explore_farm_animals/owl": [("bird", (541, 145, 819, 649))],
    "explore_farm_animals/sheep": [("sheep", (230, 83, 723, 675))],
    "explore_world_animals/giraffe": [("giraffe", (460, 187, 721, 628)), ("giraffe", (623, 121, 922, 628))],
    "explore_world_animals/polar_bear": [("bear", (243, 252, 856, 579))],
    "explore_world_animals/scarlet_macaw": [("bird", (229, 103, 926, 777))],
}
"""Photographs of gcompris-qt-data, and where their animals are: by hand, in pixels."""


@dataclass
class Example:
    """A picture, with what is in it and where."""

    kind: str
    image: np.ndarray
    names: list[str]
    boxes: torch.Tensor
    stamps: list[np.ndarray]
    """Each thing alone on white; of photographs none."""


def composed_examples(stamps: Path, gcompris: Path) -> Iterator[Example]:
    chance = np.random.default_rng(SEED)
    listed = [(name, stamps / f"{file}.png") for name, files in STAMPS.items() for file in files]
    photographs = [open_photograph(gcompris, f"explore_monuments/{name}") for name in BACKGROUNDS]
    queue: list[tuple[str, Path]] = []
    for number in range(PICTURES):
        count, kind = 1 + number % 3, ("white", "plain", "photograph")[number // 3 % 3]
        size = [(640, 480), (480, 640), (600, 600)][chance.integers(3)]
        background = {
            "white": Image.new("RGB", size, "white"),
            "plain": Image.new("RGB", size, tuple(chance.integers(90, 220, 3).tolist())),
            "photograph": photographs[chance.integers(len(photographs))].resize(size),
        }[kind]
        if len(queue) < count:
            queue += [listed[i] for i in chance.permutation(len(listed))]
        chosen = [queue.pop() for _ in range(count)]
        images = [cut_out(file) for _, file in chosen]
        boxes = [paste(background, image, place, count, chance) for place, image in enumerate(images)]
        alone = [
            np.asarray(Image.alpha_composite(Image.new("RGBA", i.size, "white"), i).convert("RGB")) for i in images
        ]
        yield Example(kind, np.asarray(background), [name for name, _ in chosen], torch.tensor(boxes).float(), alone)


def paste(canvas: Any, image: Any, place: int, places: int, chance: np.random.Generator) -> list[int]:
    """Pastes a stamp into one of equal cells along the longer side; gives its box."""
    wide = canvas.width >= canvas.height
    cell = (canvas.width / places, canvas.height) if wide else (canvas.width, canvas.height / places)
    scale = min(cell[0] * chance.uniform(0.6, 0.92) / image.width, cell[1] * chance.uniform(0.5, 0.9) / image.height)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    left = round(chance.uniform(0, cell[0] - image.width) + (place * cell[0] if wide else 0))
    top = round(chance.uniform(0, cell[1] - image.height) + (0 if wide else place * cell[1]))
    canvas.paste(image, (left, top), image)
    return [left, top, left + image.width, top + image.height]


def cut_out(file: Path) -> Any:
    image = Image.open(file).convert("RGBA")
    return image.crop(image.getchannel("A").point(lambda alpha: 255 * (alpha >= 8)).getbbox())


def open_photograph(gcompris: Path, name: str) -> Any:
    resource, file = name.split("/")
    resources = open_resources(gcompris / f"{resource}.rcc")
    (path,) = (path for path in resources.names if path.endswith(f"/{file}.webp"))
    return Image.open(io.BytesIO(resources.read(path))).convert("RGB")


def photograph_examples(gcompris: Path) -> Iterator[Example]:
    for name, things in PHOTOGRAPHS.items():
        image = np.asarray(open_photograph(gcompris, name))
        boxes = torch.tensor([box for _, box in things]).float()
        yield Example("photographs of animals", image, [thing for thing, _ in things], boxes, [])


def hits(found: Detections, example: Example, with_names: bool) -> list[tuple[int, int]]:
    """Pairs what was found with what is there, the surest first, each thing once: numbers of both."""
    overlaps = intersection_over_union(found.boxes, example.boxes)
    pairs: list[tuple[int, int]] = []
    for i in range(len(found)):
        free = set(range(len(example.names))) - {j for _, j in pairs}
        fits = [j for j in free if overlaps[i, j] >= IOU and (not with_names or found.labels[i] == example.names[j])]
        if fits:
            pairs.append((i, max(fits, key=lambda j: overlaps[i, j].item())))
    return pairs


def recall_and_precision(found: list[Detections], examples: list[Example], with_names: bool) -> tuple[float, float]:
    right = sum(len(hits(*pair, with_names)) for pair in zip(found, examples, strict=True))
    return right / sum(len(example.names) for example in examples), right / max(sum(map(len, found)), 1)


def shares_of_stamps_seen(found: list[Detections], examples: list[Example]) -> dict[str, float]:
    """How often EfficientNet's likeliest class of the stamp alone is among its five likeliest of crop and picture."""
    encoder = EfficientNetLite()
    weight, bias = encoder.class_weights(), encoder._network._fc.bias.detach()

    def classes(image: np.ndarray) -> list[int]:
        return (encoder.encode([image]) @ weight.T + bias)[0].topk(5).indices.tolist()

    seen = {"crop": 0, "picture": 0}
    total = 0
    for detections, example in zip(found, examples, strict=True):
        crops = source_crops(example.image, detections)
        whole = classes(pad_to_square(example.image))
        for i, j in hits(detections, example, with_names=False):
            truth = classes(pad_to_square(example.stamps[j]))[0]
            seen["crop"] += truth in classes(crops[i])
            seen["picture"] += truth in whole
            total += 1
    return {name: count / total for name, count in seen.items()}


def main() -> None:
    torch.set_num_threads(1)
    unpack_all(PACKAGES, CACHE)
    gcompris = CACHE / "media/gcompris-qt-data/usr/share/gcompris-qt/rcc"
    composed = list(composed_examples(CACHE / "media/tuxpaint-stamps-default/usr/share/tuxpaint/stamps", gcompris))
    examples = [*composed, *photograph_examples(gcompris)]
    for threshold in THRESHOLDS:
        found = NanoDet(threshold=threshold).detect([example.image for example in examples])
        for kind in dict.fromkeys(example.kind for example in examples):
            of_kind = [i for i, example in enumerate(examples) if example.kind == kind]
            part = [found[i] for i in of_kind], [examples[i] for i in of_kind]
            boxes, named = recall_and_precision(*part, False), recall_and_precision(*part, True)
            print(
                f"threshold {threshold}, {kind}: {sum(len(examples[i].names) for i in of_kind)} things, recall and "
                f"precision {boxes[0]:.2f} and {boxes[1]:.2f}, with names {named[0]:.2f} and {named[1]:.2f}"
            )
    detector = NanoDet()
    start = time.perf_counter()
    found = detector.detect([example.image for example in composed])
    rate = len(composed) / (time.perf_counter() - start)
    seen = shares_of_stamps_seen(found, composed)
    print(f"{rate:.1f} pictures/s on one core, the model's start included")
    print(
        f"EfficientNet sees the stamp in {seen['crop']:.0%} of the crops and in {seen['picture']:.0%} of the pictures"
    )
    recall, precision = recall_and_precision(found, composed, False)
    ratio = seen["crop"] / max(seen["picture"], 1e-9)
    result = {"benchmark": "detector", "ratio": round(ratio, 2), "recall": round(recall, 3)}
    result |= {"precision": round(precision, 3), "pictures_per_second": round(rate, 1)}
    print(json.dumps(result | {"goal": GOAL_RATIO, "holds": ratio >= GOAL_RATIO}))


if __name__ == "__main__":
    main()
