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
    """Write an HTML page of results: several runs side by side, or one with its learning curves and patients.

    Args:
        runs: folders of runs, or files that `medst evaluate` wrote.
        cohort: cohort of the single run; adds its learning curves and patients to the page.
        results: results file of the single run; RUN/results.json if not given.
        comparisons: the ms-cxr-t cohort of these results, for the true progressions.
        out: page to write; RUN/report.html with --cohort, comparison.html in the first folder without.
        tables: also print the numbers as tables in this language.
        patients: number of patients to show.
        synthetic: state on the page that all patients are synthetic.
    """
    from medst.errors import MedstError
    from medst.pages.report import compare, tables_of
    from medst.pages.run_page import build

    if not runs:
        raise MedstError("report needs at least one RUN, a run's folder or a results file.")
    if cohort is None:
        if results is not None or comparisons is not None:
            raise MedstError("--results and --comparisons go with --cohort, which shows one run with its patients.")
        folder = runs[0] if runs[0].is_dir() else runs[0].parent
        page = compare(out or folder / "comparison.html", runs)
        if tables is not None:
            print(tables_of(runs, tables))
        print(page)
        return
    if len(runs) > 1:
        raise MedstError("--cohort shows the patients of one run; give one RUN, or leave --cohort out to compare them.")
    page = build(
        out or runs[0] / "report.html",
        run=runs[0],
        results=results or runs[0] / "results.json",
        cohort=cohort,
        comparisons=comparisons,
        patients=patients,
        synthetic=synthetic,
    )
    print(page)
