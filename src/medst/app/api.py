"""The page's HTTP API for a cohort: names and numbers as JSON. Nothing is kept between calls."""

import gradio as gr

from medst.app.studies import Backend
from medst.errors import MedstError


def add_api(backend: Backend) -> None:
    """Add the calls to the page that is being built; `backend` answers them."""

    def patients() -> list:
        """Patients with the most studies: id and label."""
        return [{"patient": patient, "label": label} for label, patient in backend.patients]

    def similarity(patient: str, phrase: str) -> list:
        """Similarity of a phrase with each study of a patient in time order, with the grids of the heat maps."""
        opened = backend.open_patient(patient)
        return [
            {
                "study": study.name,
                "time": None if study.time is None else study.time.isoformat(),
                "similarity": found.similarity,
                "frontal": found.frontal.grid.tolist(),
                "lateral": None if found.lateral is None else found.lateral.grid.tolist(),
            }
            for study, found in zip(opened.studies, backend.ground(opened, phrase), strict=True)
        ]

    def compare(patient: str, prior: int, current: int, finding: str) -> dict:
        """Progression of a finding between two studies of a patient, numbered from 1 in time order."""
        opened = backend.open_patient(patient)
        found = backend.compare(opened, _integer(prior) - 1, _integer(current) - 1, finding)
        return {**vars(found), "change": found.change, "most_likely": found.most_likely}

    def similar(patient: str, study: int, count: int = 6) -> list:
        """The most similar studies of other patients."""
        most = min(max(_integer(count), 1), 100)
        found = backend.similar(backend.open_patient(patient), _integer(study) - 1, most)
        return [{"patient": one.patient, "study": one.study.name, "similarity": one.similarity} for one in found]

    for function in (patients, similarity, compare, similar) if backend.cohort is not None else ():
        gr.api(function, api_name=function.__name__)


def _integer(number: object) -> int:
    if not isinstance(number, int) or isinstance(number, bool):
        raise MedstError("the number of a study, or of studies, must be a whole number.")
    return number
