"""All that a page is drawn from, read and held against each other before anything is drawn."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medst import weights
from medst.cohort.store import Cohort, open_cohort
from medst.errors import MedstError
from medst.evaluate.results import read_results
from medst.files import find_folder
from medst.pretrain.checkpoint import RunFolder
from medst.use import Model, load


@dataclass
class Evidence:
    """A run and what was found out about it.

    Attributes:
        settings: content of settings.json.
        metrics: rows of metrics.csv, as text.
        results: content of results.json.
        loaded: the model that the results are of.
        cohort: the one that the run was trained on.
        comparisons: the one that the results were measured on, or None.
    """

    settings: dict[str, Any]
    metrics: list[dict[str, str]]
    results: dict[str, Any]
    loaded: Model
    cohort: Cohort
    comparisons: Cohort | None

    @property
    def progressions(self) -> dict[str, Any]:
        """Confusion matrices and predictions of temporal-image; empty where it was not measured."""
        empty: dict[str, Any] = {"confusion": {}, "predictions": []}
        return self.results["details"].get("temporal-image/ms-cxr-t", empty)


def read_evidence(run: Path, results: Path, cohort: Path, comparisons: Path | None) -> Evidence:
    """Open everything.

    Raises:
        MedstError: something is missing or damaged, or belongs to another run, model or cohort.
    """
    if not (run / "settings.json").is_file():
        raise MedstError(f"{run}: no run here (there is no settings.json); give the folder of one.")
    settings = RunFolder(run).read_settings("give another run")
    found = read_results(results, f"`medst evaluate all {run / 'best'} COHORT`")
    opened = open_cohort(cohort)
    if opened.pairs is None:
        raise MedstError(f"{cohort} has no pairs: it is a {opened.meta['dataset']} cohort; give the one of the run.")
    if opened.fingerprint != settings["cohort"]["fingerprint"]:
        raise MedstError(f"{cohort} is not the cohort that {run} was trained on; give that one.")
    measured = None if comparisons is None else open_cohort(comparisons)
    if measured is not None and measured.fingerprint not in found["cohorts"].values():
        raise MedstError(f"{comparisons} is not the cohort that {results} was measured on; give that one.")
    loaded = _model_of(run, found["model"]["fingerprint"], results)
    return Evidence(settings, RunFolder(run).metrics.read(), found, loaded, opened, measured)


def _model_of(run: Path, fingerprint: str, results: Path) -> Model:
    for name in ("best", "last"):
        if weights.is_model(find_folder(run / name, weights.is_model)):
            loaded = load(run / name, device="cpu")
            if loaded.fingerprint == fingerprint:
                return loaded
    raise MedstError(f"{results} is about a model that is not in {run}; evaluate {run / 'best'} again.")
