"""Fills the tables of the pages from the runs that sweeps left.

    python docs/fill_tables.py                          # from docs/claims/runs, and docs/sweeps
    python docs/fill_tables.py --collect runs/sweeps    # first take over the runs of finished sweeps

A table stands between ``<!-- ss2a sweep -c ... -->``, the command that measures it, and ``<!-- end -->``. Its runs are
``docs/claims/runs/WORLD/STUDY.csv``, as the sweep writes them but with the numbers alone that tables show; older tables
whose runs were not kept are ``docs/claims/tables/WORLD/STUDY.md``.
"""

import argparse
import csv
import functools
import re
import shlex
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from lightning_ss2a.cli.ss2a import build_parser
from lightning_ss2a.metric_names import baseline_metric
from lightning_ss2a.sweeps.definition import Sweep
from lightning_ss2a.sweeps.records import TrialRecord
from lightning_ss2a.sweeps.reporting.paper_table import write_table
from lightning_ss2a.sweeps.space import SearchSpace
from lightning_ss2a.tables import fill_marked, marked

ROOT = Path(__file__).resolve().parent.parent
CLAIMS = ROOT / "docs" / "claims"
SEARCH = ROOT / "docs" / "sweeps" / "manifold_runs.csv"
PAGES = (*sorted(CLAIMS.glob("*.md")), ROOT / "docs" / "sweeps.md")

TABLE, NESTED = marked(r"ss2a sweep (?P<arguments>.*?)"), marked("nested choice")
SEARCHED = {
    "val/ssms": "SSMS",
    "val/reconstruction_cosine": "reconstruction cosine",
    "val/recall@5/visual_to_audio": "recall@5, picture to sound",
    "val/recall@5/audio_to_visual": "recall@5, sound to picture",
}


@functools.cache
def read_sweep(arguments: str) -> Sweep:
    """What the arguments of ``ss2a sweep`` ask, with paths from the root of the repository."""
    parser = build_parser()
    options = vars(parser.instantiate(parser.parse_args(["sweep", *shlex.split(arguments)])).sweep)
    return Sweep(**{name: value for name, value in options.items() if name not in ("config", "dry_run")})


def record_file(sweep: Sweep, folder: str = "runs", suffix: str = ".csv") -> Path:
    """Where the runs of a sweep are kept, or its table."""
    return (CLAIMS / folder / sweep.root.relative_to("runs/sweeps")).with_suffix(suffix)


def read_runs(file: Path, space: SearchSpace) -> list[TrialRecord]:
    """The complete trials of a ``runs.csv``."""
    trials: dict[int, TrialRecord] = {}
    with open(file, newline="", encoding="utf-8") as opened:
        for row in csv.DictReader(opened):
            known = ("number", "repeat", "state", *space.names)
            metrics = {name: float(text) for name, text in row.items() if name not in known and text}
            point = {name: _value(space, name, row[name]) for name in space.names if row[name]}
            trial = trials.setdefault(int(row["number"]), TrialRecord(int(row["number"]), "complete", point))
            if row["state"] == "complete":
                trial.metrics[row["repeat"]] = metrics
    return list(trials.values())


def _value(space: SearchSpace, name: str, text: str) -> Any:
    options = space.parameters[name].options
    if options is None:
        return int(text) if space.parameters[name].is_whole else float(text)
    return {"null" if label is None else str(label): label for label in options}[text]


def shown_metrics(sweep: Sweep) -> list[str]:
    """Names of the numbers that the sweep's table shows."""
    assert sweep.table is not None
    names = [*sweep.table.metrics, *sweep.table.against.values()]
    return [
        *names,
        *(baseline_metric(metric, name) for metric in sweep.table.metrics for name in sweep.table.baselines),
    ]


def table_text(sweep: Sweep) -> str:
    """The sweep's table, without its title, from the runs that are kept."""
    runs, table = record_file(sweep), sweep.table
    if not runs.is_file():
        page = record_file(sweep, "tables", ".md").read_text(encoding="utf-8")
    else:
        assert table is not None
        with tempfile.TemporaryDirectory() as folder:
            page = write_table(Path(folder), table, read_runs(runs, sweep.space), sweep.space)[0].read_text("utf-8")
    return page.partition("\n\n")[2].strip()


def nested_choice(file: Path = SEARCH) -> str:
    """The search over the demo's manifold against ridge regression, paired by fold.

    *Chosen apart*: for each fold the trial that is best on the other folds, measured on the fold that had no say.
    """
    values: dict[str, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    with open(file, newline="", encoding="utf-8") as opened:
        for row in csv.DictReader(opened):
            if row["state"] == "complete":
                for metric in SEARCHED:
                    for name in (metric, baseline_metric(metric, "ridge")):
                        values[name][int(row["number"])][row["repeat"]] = float(row[name])
    lines = ["| | ridge | as it was | chosen apart | best in hindsight |", "|---|---:|---:|---:|---:|"]
    for metric, heading in SEARCHED.items():
        trials, ridge = values[metric], next(iter(values[baseline_metric(metric, "ridge")].values()))

        def best(without: str = "", trials: dict[int, dict[str, float]] = trials) -> int:
            means = {n: statistics.fmean(v for f, v in trial.items() if f != without) for n, trial in trials.items()}
            return max(means, key=means.__getitem__)

        chosen = [dict.fromkeys(ridge, min(trials)), {fold: best(fold) for fold in ridge}, dict.fromkeys(ridge, best())]
        leads = [[trials[trial][fold] - ridge[fold] for fold, trial in choice.items()] for choice in chosen]
        cells = [f"{statistics.fmean(lead):+.3f} ± {statistics.stdev(lead):.3f}" for lead in leads]
        lines.append(f"| {heading} | {statistics.fmean(ridge.values()):.3f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def filled(text: str) -> str:
    """A page with its tables as the runs have them."""

    def table(match: re.Match[str]) -> str:
        command = f"ss2a sweep {match['arguments']}"
        return f"`{command}`\n\n{table_text(read_sweep(match['arguments']))}\n"

    text = fill_marked(text, NESTED, lambda _: f"{nested_choice()}\n")
    return fill_marked(text, TABLE, table)


def collect(folder: Path) -> list[Path]:
    """Take over the runs of finished sweeps that a page shows, with the numbers that its tables show; the new files."""
    shown: dict[Path, tuple[Sweep, list[str]]] = {}
    for page in PAGES:
        for match in TABLE.finditer(page.read_text(encoding="utf-8")):
            sweep = read_sweep(match["arguments"])
            shown.setdefault(record_file(sweep), (sweep, []))[1].extend(shown_metrics(sweep))
    taken = []
    for file, (sweep, metrics) in shown.items():
        source = folder / sweep.root.relative_to("runs/sweeps") / "runs.csv"
        if source.is_file():
            with open(source, newline="", encoding="utf-8") as opened:
                rows = [row for row in csv.DictReader(opened) if row["state"] == "complete"]
            names = ["number", "repeat", "state", *sweep.space.names]
            names += [name for name in dict.fromkeys(metrics) if rows and name in rows[0]]
            write_runs(file, names, rows)
            taken.append(file)
    return taken


def write_runs(file: Path, names: list[str], rows: list[dict[str, Any]]) -> None:
    """Write these columns, numbers with six significant digits."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_short(row.get(name, "")) if name.startswith("val/") else row[name] for name in names]
                         for row in rows)  # fmt: skip


def _short(text: Any) -> str:
    return f"{float(text):.6g}" if text not in ("", None) else ""


def main() -> None:
    """Fill the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collect", type=Path, metavar="FOLDER", help="folder of finished sweeps, such as runs/sweeps")
    options = parser.parse_args()
    if options.collect is not None:
        print("\n".join(map(str, collect(options.collect))))
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
