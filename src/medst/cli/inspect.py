"""`medst inspect`."""

from pathlib import Path

from medst.cli.arguments import CohortPath


def inspect(cohort: CohortPath, /, out: Path | None = None, pairs: int = 12, seed: int = 0) -> None:
    """Show what is in a cohort: counts, lengths, labels, times and random pairs, as a page and as JSON.

    Args:
        cohort: folder of a finished cohort of any data set.
        out: the page; beside the cohort, under its name, if not given. The JSON file lies beside it, as NAME-numbers.json.
        pairs: how many random rows to show.
        seed: draws them.
    """
    from medst.pages.inspect import inspect as run
    from medst.pages.inspect import numbers_of

    page = run(cohort, out, pairs=pairs, seed=seed)
    print(f"{page}\n{numbers_of(page)}")
