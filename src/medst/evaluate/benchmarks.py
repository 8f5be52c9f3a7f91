"""The benchmarks by name: a new one is a module of this room and an entry here.

The module has two functions: one of its own name measures a model, and `fits` tells whether a cohort has the data.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medst.cohort.store import Cohort
    from medst.evaluate.task import Question, Task


@dataclass(frozen=True)
class Benchmark:
    """What is known of a benchmark before anything is measured.

    Attributes:
        name: its name on the command line and in results.json; with underscores, the name of its module.
        needs: the cohorts that it runs on.
        asks: the question that it answers.
        headline: the metric that stands for it on pages and in the terminal.
        chance: what a guess reaches in that metric.
        baselines: names of what stands beside a subject: of `subjects.BASELINES`, or of `leads.GUESSES`.
        switches: fields of `Question` that it alone depends on.
        names_patients: whether its rows name patients, who may have been in pre-training.
    """

    name: str
    needs: str
    asks: str
    headline: str
    chance: str
    baselines: tuple[str, ...] = ("untrained",)
    switches: tuple[str, ...] = ()
    names_patients: bool = True

    def task(self) -> "Task":
        """The function that measures a model."""
        return getattr(self._module(), self.name.replace("-", "_"))

    def fits(self, cohort: "Cohort", question: "Question") -> bool:
        """Whether the cohort has the data that the benchmark needs."""
        return bool(self._module().fits(cohort, question))

    def _module(self) -> Any:
        # Not imported above, so that the command line can offer the names at once.
        return import_module(f"medst.evaluate.{self.name.replace('-', '_')}")


_ALL = (
    Benchmark(
        "temporal-image",
        needs="`ms-cxr-t`",
        asks="from two images of a patient: has a finding improved, stayed or worsened?",
        headline="macro accuracy",
        chance="1/3",
        baselines=("majority answer", "thumbnails", "current study alone", "prior study alone", "untrained"),
        switches=("laterals", "learn_from"),
    ),
    Benchmark(
        "temporal-text",
        needs="`ms-cxr-t`",
        asks="do two sentences state the same change, or opposite ones?",
        headline="auroc",
        chance="0.5",
        baselines=("majority answer", "token overlap", "tf-idf", "untrained"),
        names_patients=False,
    ),
    Benchmark(
        "zero-shot",
        needs="`rsna`, or any with classes and a prompt file",
        asks="which class's prompts are nearest to the image?",
        headline="auroc",
        chance="0.5",
        baselines=("chance", "untrained"),
    ),
    Benchmark(
        "probe",
        needs="`rsna`, `covidx`, or one with pairs (CheXpert labels)",
        asks="what do 1, 10 and 100 % of the labels teach a linear layer, or with `--finetune` the image encoder too?",
        headline="auroc",
        chance="0.5",
        baselines=("majority answer", "thumbnails", "untrained"),
        switches=("fractions",),
    ),
    Benchmark(
        "retrieval",
        needs="any with pairs",
        asks="which report belongs to this image, among all and among this patient's, and the other way round?",
        headline="image to report R@1",
        chance="that of a random order",
        baselines=("random order", "untrained"),
    ),
)
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}
