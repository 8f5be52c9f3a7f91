"""Answers of any system, such as a language model, to the comparisons of a cohort: protocol `answers`.

Each line of a JSON-lines file answers one comparison. Nothing of the system is trained here. The rows are those that
protocol `strict` measures, so that the numbers stand beside those of models; a row without an answer counts as wrong.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sklearn.metrics import confusion_matrix

from medst import NUMERICS, __version__
from medst.cohort.ms_cxr_t import APART, PROGRESSIONS
from medst.cohort.store import Cohort, open_cohort
from medst.errors import MedstError
from medst.evaluate.groups import chosen, group_scores, people_of, rows_of
from medst.evaluate.leads import leads
from medst.evaluate.progression_svm import CrossValidated
from medst.evaluate.results import SCHEMA, Results
from medst.evaluate.subjects import BASELINES, Nothing
from medst.evaluate.task import AVERAGE, STRICT, LeftOut, Outcome, Question, Score
from medst.evaluate.temporal_image import MAIN_METRICS, SWAP, progression_scores, temporal_image
from medst.files import UnusableFile, claim, misfit, read_regular, sha256
from medst.progress import Progress

TASK, PROTOCOL = "temporal-image", "answers"
FORM = dict.fromkeys(("current", "prior", "finding", "answer"), str)
"""Of a line."""
BESIDE = ("majority answer", "thumbnails")
"""Baselines that need no model."""
NAMED = 3
"""How many lines, or comparisons, a warning names."""
NONE = -1
"""In place of a progression: no answer."""
Key = tuple[str, str, str]
"""Image ids of the current and the prior study, and finding."""


@dataclass(frozen=True)
class Answers:
    """What a file of answers says.

    Attributes:
        given: place in `PROGRESSIONS`, and number of the line.
        unreadable: the lines that are no answer, with the reason.
        repeated: the lines that say again what another says.
    """

    given: dict[Key, tuple[int, int]]
    unreadable: list[str]
    repeated: list[str]


def read_answers(path: Path) -> Answers:
    """Read a file of answers; empty lines are ignored.

    Raises:
        MedstError: it is missing, not a regular file, or two of its lines contradict each other.
    """
    try:
        content = read_regular(path)
    except FileNotFoundError:
        raise MedstError(f"{path}: no such file; give --answers a JSON-lines file with one answer per line.") from None
    except UnusableFile as error:
        raise MedstError(f"{path} is {error.reason}; give --answers a JSON-lines file.") from None
    found, contradictions = Answers({}, [], []), list[str]()
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            key, answer = _read_line(line, first=number == 1)
        except (ValueError, RecursionError) as error:
            found.unreadable.append(f"line {number} ({' '.join(str(error).split())[:120]})")
            continue
        before, at = found.given.setdefault(key, (answer, number))
        if before != answer:
            contradictions.append(f"lines {at} and {number} on {_named(key)}")
        elif at != number:
            found.repeated.append(f"line {number} (as line {at})")
    if contradictions:
        raise MedstError(f"{path}: answers contradict each other: {_some(contradictions)}; keep one of each.")
    return found


def _read_line(line: bytes, first: bool) -> tuple[Key, int]:
    value = json.loads(line.decode("utf-8-sig" if first else "utf-8"))
    if wrong := misfit(value, FORM):
        raise ValueError(wrong)
    answer = value["answer"].strip().lower()
    if answer not in PROGRESSIONS:
        raise ValueError(f"the answer {value['answer'][:40]!r} is not one of {', '.join(PROGRESSIONS)}")
    return (value["current"], value["prior"], value["finding"].removesuffix(APART)), PROGRESSIONS.index(answer)


def evaluate_answers(
    answers: Path,
    cohort: Path,
    out: Path | None,
    *,
    question: Question = STRICT,
    baselines: bool = True,
    keep: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score answers to the comparisons of a cohort.

    Args:
        answers: the file: a JSON object per line, with the image ids `current` and `prior` as in the cohort's image table, a
            `finding` and an `answer`. A comparison with its studies exchanged may be answered too.
        cohort: one with comparisons.
        out: file for the results; None writes nothing.
        question: its `by` and `patients` split the numbers; nothing else of it counts.
        baselines: whether to measure the majority answer and thumbnails on the same rows, under protocol `strict`.
        keep: whether numbers of the same answers in `out` are kept; False writes a new file.
        progress: called with (subjects done, subjects in all, name of the current step).

    Returns:
        The content of the file, as `medst.evaluate.runner.evaluate` does.

    Raises:
        MedstError: answers that contradict each other, or none to any comparison of the cohort; no cohort with comparisons
            there, or one with too few; with `keep`, `out` holds other numbers.
    """
    given, opened = read_answers(answers), open_cohort(cohort)
    by, people = chosen(question.by), people_of(question, [opened])
    beside = BESIDE if baselines else ()
    asked: dict[str, Any] = {"baselines": list(beside), "untrained": [], "intervals": True}
    if by:
        asked["by"] = [*by, *([] if question.patients is None else [sha256(question.patients)])]
    head = {"schema": SCHEMA, "medst_version": __version__, "numerics": NUMERICS, "protocol": PROTOCOL, "switches": {}}
    head["model"] = {"fingerprint": sha256(answers), "recipe": PROTOCOL}
    say = progress or (lambda done, total, note: None)
    with nullcontext() if out is None else claim(out):
        results = Results(
            out, head, {opened.dataset: opened.fingerprint}, {opened.dataset: "unknown"}, keep and out is not None
        )
        if not results.holds(TASK, opened.dataset, asked):
            say(0, 1 + len(beside), "answers")
            outcome = _measured(given, answers, opened)
            scores: dict[str, list[Score]] = {}
            for done, name in enumerate(beside, 1):
                say(done, 1 + len(beside), name)
                scores[name] = _baseline(name, opened, outcome)
            ahead = leads(TASK, outcome, scores, intervals=True)
            groups, no_groups = group_scores(TASK, by, outcome, scores, ahead, opened, people, intervals=True)
            outcome.left_out += no_groups
            results.put(TASK, opened.dataset, outcome, scores, ahead, list(rows_of(groups)), asked)
        say(1 + len(beside), 1 + len(beside), f"{len(results.content['results'])} numbers")
    return results.content


def _measured(given: Answers, file: Path, cohort: Cohort) -> Outcome:
    """The outcome of the answers, on the rows that protocol `strict` measures."""
    # What strict leaves out does not depend on the subject.
    strict = temporal_image(Nothing(), cohort, replace(STRICT, bootstrap=False))
    findings = [finding for finding in dict.fromkeys(finding for finding, _ in strict.images) if finding != AVERAGE]
    table = cohort.require("comparisons")
    rows = [row for finding in findings for row in _rows(cohort, table.filter(finding=finding))]
    left_out = [replace(left, folds=0) for left in strict.left_out]
    outcome = Outcome(classes=list(PROGRESSIONS), left_out=left_out)
    outcome.images = {(finding, None): images for (finding, _), images in strict.images.items()}
    outcome.warnings = list(_warnings(given, file, cohort, rows))
    found, exchanged = dict[str, tuple[CrossValidated, np.ndarray]](), dict[str, tuple[CrossValidated, np.ndarray]]()
    for finding in findings:
        own = [row for row in rows if row["finding"] == finding]
        classes = np.array([PROGRESSIONS.index(row["progression"]) for row in own])
        patients = np.array([row["patient_id"] for row in own])
        said, swapped = (np.array([given.given.get(row[key], (NONE, 0))[0] for row in own]) for key in ("key", "swap"))
        found[finding] = _one(classes, said, swapped), patients
        both = (said != NONE) & (swapped != NONE)
        if both.any():
            exchanged[finding] = _one(classes[both], said[both], swapped[both]), patients[both]
        outcome.confusion[finding] = confusion_matrix(classes, said, labels=range(len(PROGRESSIONS))).tolist()
        outcome.predictions += [
            {name: row[name] for name in table.columns} | {"predicted": None if one == NONE else PROGRESSIONS[one]}
            for row, one in zip(own, said.tolist(), strict=True)
        ]
    outcome.scores = progression_scores(found, None, STRICT, (), MAIN_METRICS)
    consistency = progression_scores(exchanged, None, STRICT, (), (SWAP,))
    outcome.scores += consistency
    if not consistency:
        outcome.left_out.append(LeftOut(SWAP, 0, "no comparison was also answered with its studies exchanged"))
    return outcome


def _one(classes: np.ndarray, said: np.ndarray, swapped: np.ndarray) -> CrossValidated:
    return CrossValidated(np.array([(said == classes).mean()]), classes, said[None], swapped[None])


def _rows(cohort: Cohort, table: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """The comparisons of one finding, each with its key and that of the same with the studies exchanged."""
    ids = cohort.image_table["image_id"].to_list()
    for row in table.iter_rows(named=True):
        current, prior, finding = ids[row["current"]], ids[row["previous"]], row["finding"].removesuffix(APART)
        yield row | {"key": (current, prior, finding), "swap": (prior, current, finding)}


def _warnings(given: Answers, file: Path, cohort: Cohort, rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Sentences on answers that are missing, unknown, repeated or unreadable.

    Raises:
        MedstError: no comparison is answered.
    """
    every = [one for row in _rows(cohort, cohort.require("comparisons")) for one in (row["key"], row["swap"])]
    asked, images = set(every), set(cohort.image_table["image_id"].to_list())
    findings = {finding for _, _, finding in asked}
    unknown = []
    for key, (_, line) in given.given.items():
        if key not in asked:
            missing = next((image for image in key[:2] if image not in images), None)
            reason = f"no image {missing[:80]}" if missing is not None else "these images are not compared"
            unknown.append(f"line {line} ({reason if key[2] in findings else f'no finding {key[2][:40]!r}'})")
    silent = [_named(row["key"]) for row in rows if row["key"] not in given.given]
    if len(silent) == len(rows):
        reason = _some([*given.unreadable, *unknown])
        raise MedstError(
            f"{file} answers no comparison of {cohort.path}{f': {reason}' if reason else ''}; each line needs current and "
            "prior, image ids of that cohort, a finding and an answer."
        )
    if silent:
        yield f"{len(silent)} of {len(rows)} comparisons have no answer and count as wrong: {_some(silent)}."
    if given.unreadable:
        yield f"{file.name}: lines that can't be read as an answer: {len(given.unreadable)}: {_some(given.unreadable)}."
    if unknown:
        yield f"{file.name}: lines that answer no comparison of the cohort: {len(unknown)}: {_some(unknown)}."
    if given.repeated:
        yield f"{file.name}: lines that repeat an answer: {len(given.repeated)}: {_some(given.repeated)}."
    yield f"{cohort.path.name}: whether what answered was trained on these patients is unknown."


def _baseline(name: str, cohort: Cohort, outcome: Outcome) -> list[Score]:
    """Scores of a baseline under protocol `strict`, where the answers have the same number on the same rows."""
    baseline = BASELINES[name]
    subject = baseline.make(Nothing(), 0)
    assert subject is not None
    measured = temporal_image(subject, cohort, replace(STRICT, bootstrap=False, **baseline.changes))
    rows = {score.key: score.n for score in outcome.scores}
    scores = [replace(score, folds=None) for score in measured.scores]
    return [score for score in scores if rows.get(score.key) == score.n]


def _named(key: Key) -> str:
    current, prior, finding = (part[:80] for part in key)
    return f"{finding} of {current} after {prior}"


def _some(sentences: Sequence[str]) -> str:
    return ", ".join(sentences[:NAMED]) + (" and others" if len(sentences) > NAMED else "")
