"""`medst inspect`."""

from pathlib import Path

from medst.cli.arguments import CohortPath


def inspect(cohort: CohortPath, /, out: Path | None = None, pairs: int = 12, seed: int = 0) -> None:
    """Show what is in a cohort: counts, lengths, labels, times and random pairs, as a page and as JSON.

    Args:
        cohort: folder of a prepared cohort of any data set.
        out: page to write; COHORT.html beside the cohort if not given. The JSON file is written beside it, as
            NAME-numbers.json.
        pairs: number of random rows to show.
        seed: seed of the random rows.
    """
    from medst.pages.inspect import inspect as run
    from medst.pages.inspect import numbers_of

    page = run(cohort, out, pairs=pairs, seed=seed)
    print(f"{page}\n{numbers_of(page)}")
