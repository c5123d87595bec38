"""The command line of ``benchmarks/claims.py``."""

import argparse
import json

from . import ccmr, cycle_mix, depth, filter, gap, paper_tables, remixer, sensitivity, teacher, temporal
from .runs import ROOT, Results, make_runs
from .tables import fill_page

CLAIMS = {
    "gap": gap,
    "ccmr": ccmr,
    "depth": depth,
    "filter": filter,
    "teacher": teacher,
    "remixer": remixer,
    "cycle_mix": cycle_mix,
    "temporal": temporal,
    "sensitivity": sensitivity,
}
PAGE = ROOT / "docs" / "claims.md"


def main() -> None:
    """Make the runs of a claim, or of all; then its tables and figure."""
    parser = argparse.ArgumentParser(description="Measure a claim of docs/claims.md; see the page.")
    parser.add_argument(
        "claim",
        nargs="?",
        choices=[*CLAIMS, "tables", "all"],
        help="left out: only tables and figures, of all; tables: take the paper's tables from runs/sweeps",
    )
    parser.add_argument("--seeds", type=int, default=3, help="training seeds, and simulated worlds")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, each of one thread")
    options = parser.parse_args()
    if options.claim == "tables":
        print("\n".join(map(str, paper_tables.collect())))
        options.claim = None
    blocks, runs_there, runs_wanted = paper_tables.report(), 0, 0
    for name, claim in CLAIMS.items():
        runs = claim.runs(options.seeds)
        if options.claim in (name, "all"):
            getattr(claim, "make", make_runs)(runs, Results(claim.FILE), options.processes)
        if options.claim in (name, "all", None):
            blocks |= claim.report(options.seeds)
            runs_there += len(Results(claim.FILE).of(runs))
            runs_wanted += len(runs)
    for name, block in blocks.items():
        print(f"\n{name}\n{block}")
    if PAGE.is_file():
        fill_page(PAGE, blocks)
    ratio = round(runs_there / runs_wanted, 3)
    result = {"benchmark": "claims", "ratio": ratio, "goal": "the numbers of every run are there"}
    print(json.dumps(result | {"holds": ratio == 1}))
