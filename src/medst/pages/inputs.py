"""The inputs of a run's page, read and checked against each other before anything is drawn."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medst import weights
from medst.cohort.store import Cohort, open_cohort
from medst.errors import MedstError
from medst.files import find_folder, read_json, sha256
from medst.pretrain.checkpoint import RunFolder
from medst.use import Model, load


@dataclass
class RunInputs:
    """A run as its folder describes it.

    Attributes:
        path: the folder.
        settings: content of settings.json.
        metrics: rows of metrics.csv, as text.
        began: the day when training began, yyyy-mm-dd in UTC; empty if it was not recorded.
    """

    path: Path
    settings: dict[str, Any]
    metrics: list[dict[str, str]]
    began: str


@dataclass
class PatientInputs:
    """What the patients of a page are drawn from.

    Attributes:
        results: content of results.json.
        model: the model that the results are about.
        cohort: the one that the run was trained on.
        comparisons: the ms-cxr-t cohort that the results were measured on, or None.
    """

    results: dict[str, Any]
    model: Model
    cohort: Cohort
    comparisons: Cohort | None

    @property
    def predictions(self) -> list[dict[str, Any]]:
        """The predictions of temporal-image; empty if it was not measured."""
        return self.results["details"].get("temporal-image/ms-cxr-t", {"predictions": []})["predictions"]


def read_run(run: Path) -> RunInputs:
    """Read the folder of a run.

    Raises:
        MedstError: it is not a run, or damaged.
    """
    settings = RunFolder(run).read_settings("give the folder of a run")
    environment = run / "environment.json"
    starts = read_json(environment, "remove it", [{"begun": str}]) if environment.is_file() else []
    return RunInputs(run, settings, RunFolder(run).metrics.read(), starts[0]["begun"][:10] if starts else "")


def models_with(run: Path, fingerprint: str) -> frozenset[str]:
    """Which models of a run have a fingerprint, "best" or "last"; both where the folder has neither, so none can tell."""
    folders = {name: find_folder(run / name, weights.is_model) for name in ("best", "last")}
    here = {name: folder / "model.safetensors" for name, folder in folders.items() if weights.is_model(folder)}
    return frozenset(name for name, file in here.items() if sha256(file) == fingerprint) if here else frozenset(folders)


def read_patient_inputs(
    run: RunInputs, results: dict[str, Any], cohort: Path, comparisons: Path | None
) -> PatientInputs:
    """Open the model and the cohorts that belong to a run and its results, see `PatientInputs`.

    Raises:
        MedstError: something is missing or damaged, or belongs to another run, model or cohort.
    """
    opened = open_cohort(cohort)
    opened.require("pairs", "give the cohort of the run")
    if opened.fingerprint != run.settings["cohort"]["fingerprint"]:
        raise MedstError(f"{cohort} is not the cohort that {run.path} was trained on; give that one.")
    measured = None if comparisons is None else open_cohort(comparisons)
    if measured is not None and measured.fingerprint not in results["cohorts"].values():
        raise MedstError(f"{comparisons} is not a cohort that the results were measured on; give that one.")
    for folder in (run.path / "best", run.path / "last"):
        if weights.is_model(find_folder(folder, weights.is_model)):
            model = load(folder, device="cpu")
            if model.fingerprint == results["model"]["fingerprint"]:
                return PatientInputs(results, model, opened, measured)
    raise MedstError(
        f"the results are about a model that is not in {run.path}; run `medst evaluate` on {run.path / 'best'} again."
    )
