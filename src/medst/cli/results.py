"""Results in the terminal."""

from collections.abc import Collection
from pathlib import Path
from typing import Any


def print_results(results: dict[str, Any], file: Path, tasks: Collection[str], datasets: Collection[str]) -> None:
    """Print the headline numbers of these benchmarks and data sets, what could not be measured, and warnings.

    Args:
        results: content of a results file, which may hold more.
        file: that file.
        tasks: names of benchmarks.
        datasets: names of data sets.
    """
    from medst.evaluate.summary import groups_table, not_measured, summary_table

    print(summary_table(results, tasks, datasets))
    if groups := groups_table(results, tasks, datasets):
        print(groups)
    if results["protocol"] == "paper":
        print(
            "Protocol paper is for comparison with publications. The folds of temporal-image share patients, whom a "
            "model may recognise instead of the change, and no number has an interval."
        )
    for sentence in not_measured(results, tasks, datasets):
        print(sentence)
    for warning in results["warnings"]:
        print(f"Warning: {warning}")
    print(f"All {len(results['results'])} numbers: {file}")
