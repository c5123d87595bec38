"""Does the search over the demo's manifold find a setting that passes ridge regression, on folds it was not chosen by?

Reads the runs of a sweep over folds (`ss2a sweep -c configs/sweeps/manifold.yaml`), the recorded ones unless others are
named; trains nothing. The best of many trials is the best partly by luck. So for each fold a setting is chosen by its
mean on the *other* folds, and measured on the fold that had no say; beside it stand the first trial, ridge regression,
and the best in hindsight, which is what a sweep's table shows. All differences are paired by fold.

    python benchmarks/demo_search.py [runs/sweeps/manifold/runs.csv]
"""

import argparse
import csv
import json
import statistics
from collections import defaultdict
from pathlib import Path

METRICS = ("val/ssms", "val/reconstruction_cosine", "val/recall@5/visual_to_audio", "val/recall@5/audio_to_visual")
RIDGE = "_baseline/ridge"
RECORDED = Path(__file__).parent.parent / "docs" / "sweeps" / "manifold_runs.csv"

Values = dict[int, dict[str, float]]
"""By trial and fold."""


def read(file: Path) -> dict[str, Values]:
    """Metrics and ridge's, by name, of the complete trials of a sweep."""
    found: dict[str, Values] = defaultdict(lambda: defaultdict(dict))
    with open(file, newline="") as opened:
        for row in csv.DictReader(opened):
            if row["state"] == "complete":
                for metric in METRICS:
                    for name in (metric, metric + RIDGE):
                        found[name][int(row["number"])][row["repeat"]] = float(row[name])
    return found


def chosen_without(values: Values, fold: str) -> int:
    """The trial that is best on the other folds."""
    return max(values, key=lambda trial: statistics.fmean(v for f, v in values[trial].items() if f != fold))


def shown(differences: list[float]) -> str:
    return f"{statistics.fmean(differences):+.3f} ± {statistics.stdev(differences):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs", nargs="?", default=RECORDED, type=Path, help="runs.csv of a sweep; default: the recorded one"
    )
    found = read(parser.parse_args().runs)
    print(f"{len(found[METRICS[0]])} trials; differences from ridge regression, mean ± standard deviation over folds")
    print(f"{'':32}{'ridge':>8}{'first trial':>18}{'chosen apart':>18}{'best in hindsight':>19}")
    passed = 0
    for metric in METRICS:
        values, ridge = found[metric], next(iter(found[metric + RIDGE].values()))
        folds = sorted(ridge)
        first = min(values)
        best = max(values, key=lambda trial: statistics.fmean(values[trial].values()))
        apart = [values[chosen_without(values, fold)][fold] - ridge[fold] for fold in folds]
        ways = [[values[trial][fold] - ridge[fold] for fold in folds] for trial in (first, best)]
        level = statistics.fmean(ridge.values())
        print(f"{metric:32}{level:8.3f}{shown(ways[0]):>18}{shown(apart):>18}{shown(ways[1]):>19}  (trial {best})")
        passed += statistics.fmean(apart) > statistics.stdev(apart)
    result = {"benchmark": "demo_search", "ratio": passed / len(METRICS)}
    print(json.dumps(result | {"goal": "the chosen setting passes ridge by more than the spread", "holds": passed > 0}))


if __name__ == "__main__":
    main()
