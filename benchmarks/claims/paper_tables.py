"""The paper's ablation tables, as sweeps made them.

`ss2a sweep -c configs/sweeps/paper_table_N.yaml -c configs/sweeps/on_WORLD.yaml`, then `python benchmarks/claims.py
tables`.
"""

import shutil
from pathlib import Path

from .runs import RESULTS, ROOT

SWEEPS = ROOT / "runs" / "sweeps"
TABLES = ("3", "4", "8", "9", "10", "12")
WORLDS = ("simulated", "demo")


def collect(folder: Path = SWEEPS) -> list[Path]:
    """Keep the tables of the sweeps that are there, as page and as csv; the new files."""
    kept = []
    for world in WORLDS:
        for table in TABLES:
            study = folder / world / f"paper_table_{table}"
            for name, suffix in (("table.md", ".md"), ("table.csv", ".csv")):
                if (study / name).is_file():
                    kept.append(Path(shutil.copyfile(study / name, _file(table, world, suffix))))
    return kept


def report() -> dict[str, str]:
    """Each table without its title, by ``paper_table_N WORLD``."""
    blocks = {}
    for table in TABLES:
        for world in WORLDS:
            file = _file(table, world, ".md")
            if file.is_file():
                blocks[f"paper_table_{table} {world}"] = file.read_text(encoding="utf-8").partition("\n\n")[2].strip()
    return blocks


def _file(table: str, world: str, suffix: str) -> Path:
    return RESULTS / f"paper_table_{table}_{world}{suffix}"
