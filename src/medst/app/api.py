"""The page's HTTP API over the cohort: names and numbers, JSON in and out, nothing kept between calls."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from medst.app.studies import Desk
from medst.errors import MedstError


def offer(desk: Desk, told: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Add the calls to the page that is being built.

    Args:
        desk: answers them.
        told: makes messages of our errors.
    """

    def patients() -> list:
        """Patients with the most studies: id and label."""
        return [{"patient": patient, "label": label} for label, patient in desk.patients]

    def similarity(patient: str, phrase: str) -> list:
        """Of each study of a patient and a phrase, in time order, with the heat map's grid of the frontal view."""
        visit = desk.visit(patient)
        return [
            {
                "study": study.name,
                "time": None if study.time is None else study.time.isoformat(),
                "similarity": found.similarity,
                "frontal": found.frontal.grid.tolist(),
                "lateral": None if found.lateral is None else found.lateral.grid.tolist(),
            }
            for study, found in zip(visit.studies, desk.ground(visit, phrase), strict=True)
        ]

    def compare(patient: str, prior: int, current: int, finding: str) -> dict:
        """Progression of a finding between two studies of a patient, numbered from 1 in time order."""
        found = desk.compare(desk.visit(patient), _whole(prior) - 1, _whole(current) - 1, finding)
        return {**vars(found), "change": found.change, "most_likely": found.most_likely}

    def similar(patient: str, study: int, count: int = 6) -> list:
        """The most similar studies of other patients."""
        hits = desk.similar(desk.visit(patient), _whole(study) - 1, min(max(_whole(count), 1), 100))
        return [{"patient": h.patient, "study": h.study, "similarity": h.similarity} for h in hits]

    for function in (patients, similarity, compare, similar) if desk.cohort is not None else ():
        gr.api(told(function), api_name=function.__name__)


def _whole(number: object) -> int:
    if not isinstance(number, int) or isinstance(number, bool):
        raise MedstError("the number of a study, or of studies, must be a whole number.")
    return number
