"""``ss2a table``: evaluations joined to the paper's table."""

from lightning_ss2a.evaluation.paper_table import join_reports, write_table
from lightning_ss2a.files import to_path


def table(
    sections: dict[str, dict[str, str]] | None = None, output: str = "table", unranked: list[str] | None = None
) -> None:
    """Join reports of ss2a evaluate to a table as the paper's: sections of rows, data sets as groups of columns.

    Args:
        sections: folders of reports by the name of the data set, by the name of the section, as in
            {Single-Source: {VGG-SS: evaluation/single, MUSIC: evaluation/solo}, Multi-Source: {...}}.
        output: folder of table.md and table.tex (booktabs and multirow).
        unranked: methods that are given no place, such as the true sounds.
    """
    joined = join_reports(sections or {}, unranked or ())
    written = write_table(to_path(output), joined)
    print(joined.markdown(), end="")
    print(" ".join(map(str, written)))
