"""Do sources of audio count less in the mix, and does a translated v help (section 8.2)?"""

from collections.abc import Callable, Sequence

from .chain import WORLDS, ChainRun, Place, checkpoint, dataset, make_chains, places, recipe
from .figures import COLOURS, figure, line
from .hearing import (
    ADDED,
    JUDGES,
    MODES,
    REMIXERS,
    STAGES,
    clip_scores,
    held_out,
    load_remixer,
    load_translator,
    sensitivities,
)
from .runs import Results
from .tables import markdown_table, mean_and_spread

FILE = "sensitivity"
LABELS = {
    "remixer": "as it is: sees all sources",
    "parts": "the same, e and v dropped apart",
    "heard": "hears half of the sources, v = 0",
    "heard translated": "hears half of them, v from the translator",
    "e alone": "control: e alone, no v",
}
OTHERS = ("translation", "clip")


def runs(seeds: int) -> list[ChainRun]:
    """A row for each Remixer, one for the translator and one for the CLIP score, at every place."""
    hashes = {world: recipe(STAGES[world], ADDED) for world in WORLDS}
    return [
        ChainRun(place, arm, hashes[place.world])
        for place in places(seeds)
        for arm in (*REMIXERS[place.world], *OTHERS)
    ]


def make(wanted: Sequence[ChainRun], results: Results, processes: int = 1) -> None:
    """Make the runs, in this process."""
    make_chains(wanted, results, measure)


def measure(place: Place, wanted: Sequence[str]) -> dict[str, dict[str, float]]:
    """Numbers by arm, of some arms of a place."""
    scenes, pairs, added = held_out(place, dataset(place, "scenes"), dataset(place, "pairs"))
    judge, found = load_translator(place), {}
    for arm in wanted:
        if arm == "translation":
            found[arm] = checkpoint("translator", STAGES[place.world], place)[1]
        elif arm == "clip":
            found[arm] = clip_scores(load_remixer("remixer", place), scenes, judge)
        else:
            metrics = checkpoint(arm, STAGES[place.world], place)[1]
            kept = {name: metrics[name] for name in ("ssms", "reconstruction_cosine", "ssms_baseline/ridge")}
            found[arm] = sensitivities(load_remixer(arm, place), scenes, pairs, added, judge) | kept
    return found


# ---------------------------------------------------------------- tables and figure

PARTS = {"heard, v = 0": "v = 0 / seen", "heard, translator": "translator / seen", "heard, ridge": "ridge / seen"}
COUNTS = {"simulated": range(1, 6), "demo": range(1, 5)}
METHODS = {
    "true audio": "true audio of the scene",
    "remixer": "Remixer, mean",
    "draw": "Remixer, one draw",
    "source_mean": "mean of χ(e) of the sources",
    "global": "χ of the global embedding",
    "ridge": "ridge regression on what is seen",
    "mean_audio": "mean training audio",
    "chance": "audio of some training scene",
}
TRANSLATION = {
    "translation_cosine": "cosine",
    "recall@1/audio_to_visual": "recall@1",
    "recall@5/audio_to_visual": "recall@5",
    "recall@10/audio_to_visual": "recall@10",
}


def report(seeds: int) -> dict[str, str]:
    """Tables; draws the figure."""
    results, made = Results(FILE), runs(seeds)

    def values(world: str, arm: str, name: str) -> list[float]:
        return results.values([run for run in made if (run.place.world, run.arm) == (world, arm)], name)

    blocks = {}
    for world in WORLDS:
        toward, moved = [], []
        for arm in REMIXERS[world]:
            cells = [mean_and_spread(values(world, arm, f"{mode}/toward")) for mode in MODES]
            parts = [mean_and_spread(_parts(values, world, arm, mode), 2) for mode in PARTS]
            toward.append([LABELS[arm], *cells, *parts])
            cells = [mean_and_spread(values(world, arm, f"{mode}/moved")) for mode in MODES]
            quality = [("reconstruction_cosine", 3), ("ssms", 2), ("ssms_baseline/ridge", 2)]
            moved.append([LABELS[arm], *cells, *(mean_and_spread(values(world, arm, n), d) for n, d in quality)])
        blocks[f"sensitivity {world}"] = markdown_table(["Remixer", *MODES.values(), *PARTS.values()], toward)
        header = ["Remixer", *MODES.values(), "cosine, scenes", "SSMS, scenes", "SSMS, ridge"]
        blocks[f"sensitivity {world} moved"] = markdown_table(header, moved)
    rows = []
    for world in WORLDS:
        for suffix, label in (("", "translator"), ("_baseline/ridge", "ridge regression")):
            rows.append(
                [f"{world}: {label}"]
                + [mean_and_spread(values(world, "translation", name + suffix)) for name in TRANSLATION]
            )
    blocks["sensitivity translation"] = markdown_table(["", *TRANSLATION.values()], rows)
    rows = [
        [label, *(mean_and_spread(values(w, "clip", f"{method}/{judge}"), 1) for w in WORLDS for judge in JUDGES)]
        for method, label in METHODS.items()
    ]
    agree = [
        mean_and_spread(values(world, "clip", f"rank/{judge}"), 2) if judge != "ridge" else ""
        for world in WORLDS
        for judge in JUDGES
    ]
    rows.append(["rank correlation with the first", *agree])
    blocks["sensitivity clip"] = markdown_table(
        ["", *(f"{world}: {label}" for world in WORLDS for label in JUDGES.values())], rows
    )
    _draw(values)
    return blocks


def _parts(values: Callable[[str, str, str], list[float]], world: str, arm: str, mode: str) -> list[float]:
    pairs = zip(values(world, arm, f"{mode}/toward"), values(world, arm, "seen/toward"), strict=True)
    return [heard / seen for heard, seen in pairs]


def _draw(values: Callable[[str, str, str], list[float]]) -> None:
    colours = ("blue", "green", "orange", "red", "grey", None)
    with figure("sensitivity", 2, width=10.5, height=3.6) as axes:
        for axis, world in zip(axes, WORLDS, strict=True):
            for shift, (mode, colour) in enumerate(zip(MODES, colours, strict=True)):
                samples = [values(world, "remixer", f"{mode}/toward/{count}") for count in COUNTS[world]]
                places = [count + 0.05 * (shift - 2.5) for count in COUNTS[world]]
                options = {"color": COLOURS[colour] if colour else "#8a4fb0", "label": MODES[mode]}
                line(axis, places, samples, linestyle="--" if mode.startswith("seen") else "-", **options)
            axis.axhline(0, color=COLOURS["grey"], linewidth=0.8)
            axis.set_title(world)
            axis.set_xlabel("sources in the scene before")
            axis.set_xticks(list(COUNTS[world]))
        axes[0].set_ylabel("sensitivity to an added source")
        axes[0].legend(frameon=False, fontsize=8)
