"""The registry: a benchmark is one module and one entry."""

import inspect
import sys
from pathlib import Path
from types import ModuleType

import pytest

from medst.cohort.store import Cohort
from medst.evaluate.benchmarks import BENCHMARKS, Benchmark
from medst.evaluate.runner import evaluate
from medst.evaluate.subjects import Subject
from medst.evaluate.summary import headline_rows
from medst.evaluate.task import ALL, Outcome, Question, Score


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=list(BENCHMARKS))
def test_every_entry_has_its_module_and_switches(benchmark: Benchmark) -> None:
    assert list(inspect.signature(benchmark.task()).parameters) == ["subject", "cohort", "question"]
    assert all(hasattr(Question(), name) for name in benchmark.switches)


def test_a_new_benchmark_is_one_module_and_one_entry(
    model_folder: Path, benchmark_cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def constant(subject: Subject, cohort: Cohort, question: Question) -> Outcome:
        return Outcome([Score("share", ALL, 0.5, None, 3, 0.25)])

    def fits(cohort: Cohort, question: Question) -> bool:
        return cohort.sentences is not None

    module = ModuleType("medst.evaluate.constant")
    vars(module).update(constant=constant, fits=fits)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(BENCHMARKS, "constant", Benchmark("constant", "any", "half?", "share", "0.25"))
    found = evaluate(model_folder, benchmark_cohort, None, tasks=("constant",), baseline_seeds=(0,))
    assert [row["task"] for row in found["results"]] == ["constant", "constant"]
    [row] = headline_rows(found, ["constant"], ["ms-cxr-t"])
    assert (row["model"], row["value"], row["chance"]) == ("trained", 0.5, 0.25)
