"""`medst report`."""

from pathlib import Path
from typing import Literal

from medst.cli.arguments import Runs


def report(
    runs: Runs,
    /,
    cohort: Path | None = None,
    results: Path | None = None,
    comparisons: Path | None = None,
    out: Path | None = None,
    tables: Literal["markdown", "latex"] | None = None,
    patients: int = 4,
    synthetic: bool = False,
) -> None:
    """Write an HTML page of results: one run with its learning curves and patients, or several side by side.

    Args:
        runs: folders of runs, or files that `medst evaluate` wrote.
        cohort: cohort of the single run; adds some of its patients to the page.
        results: results file of the single run; RUN/results.json if not given.
        comparisons: the ms-cxr-t cohort of these results, for the true progressions.
        out: page to write; RUN/report.html with --cohort, comparison.html in the first folder without.
        tables: also print the numbers as tables in this language.
        patients: number of patients to show.
        synthetic: state on the page that all patients are synthetic.
    """
    from medst.pages.report import report as write_report
    from medst.pages.tables import tables_of

    page = write_report(
        runs,
        out,
        cohort=cohort,
        results=results,
        comparisons=comparisons,
        patients=patients,
        synthetic=synthetic,
    )
    if tables is not None:
        print(tables_of(runs, tables))
    print(page)
