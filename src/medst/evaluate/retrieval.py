"""Retrieval on the test split of a cohort with pairs: from image to report and back, among all and within a patient.

"Which of this patient's reports belongs to this image?" needs a model that tells one patient's studies apart, because all of
them describe the same body. It needs no sense of time: the answer is the same in any order of the studies. Both protocols
measure the same. Reports with the same words count as one report: finding any of them is right.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import polars as pl
from jaxtyping import Float
from scipy.stats import hypergeom

from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.evaluate.intervals import accuracy, scored
from medst.evaluate.subjects import Subject
from medst.evaluate.task import ALL, STRICT, WITHIN, LeftOut, Outcome, Question

AMONG = (1, 5, 10)
BLOCK = 1024
"""Queries per matrix product, so that memory does not grow with the square of the cohort."""


def fits(cohort: Cohort, question: Question) -> bool:
    """Whether the cohort has pairs."""
    return cohort.pairs is not None


def retrieval(subject: Subject, cohort: Cohort, question: Question = STRICT) -> Outcome:
    """Measure a subject.

    Images are encoded with their lateral views where they exist. `chance` is the result of a shuffled ranking.

    Raises:
        MedstError: the cohort has no pairs, or fewer than two in its test split.
    """
    table = cohort.require("pairs", "retrieval needs one with reports").filter(split="test")
    if table.height < 2:
        raise MedstError(f"{cohort.path}: {table.height} pairs in its test split, retrieval needs at least 2.")
    frontal, laterals = table["frontal"].to_numpy(), table["lateral"].cast(pl.Int64).fill_null(-1).to_numpy()
    images = subject.images(cohort, frontal, laterals=laterals).embedding
    _, report = np.unique(table["report"].to_numpy().astype(str), return_inverse=True)
    texts = subject.texts(table["report"].to_list())
    patients = table["patient_id"].to_numpy()

    outcome = Outcome()
    everyone = np.zeros(len(patients), dtype=np.int64)
    for name, queries, targets in (("image to report", images, texts), ("report to image", texts, images)):
        for finding, groups, ks in ((ALL, everyone, AMONG), (WITHIN, patients, AMONG[:1])):
            rank, chance, rows = ranks(queries, targets, report, groups, ks)
            if not len(rows):
                reason = "all its reports are the same" if finding == ALL else "no patient has two different reports"
                if name == "image to report":
                    outcome.left_out.append(LeftOut(finding, 0, reason))
                continue
            outcome.images[finding, None] = frontal[rows][:, None]
            for k in ks:
                hits = [partial(accuracy, rank < k)]
                outcome.scores.append(scored(f"{name} R@{k}", finding, hits, patients[rows], chance[k], question))
    return outcome


def ranks(
    queries: Float[np.ndarray, "pair dim"],
    targets: Float[np.ndarray, "pair dim"],
    report: np.ndarray,
    groups: np.ndarray,
    ks: tuple[int, ...] = AMONG,
) -> tuple[np.ndarray, dict[int, float], np.ndarray]:
    """Count the wrong targets of a query's group that are at least as similar as the best right one.

    Args:
        report: one number per pair, equal for equal words; targets with the query's number are right.
        groups: only targets of the query's group are compared; groups with a single report are left out.
        ks: ranks to compute the chance for.

    Returns:
        The rank, 0 for the best; the chance for each of `ks`; the rows that were queries.
    """
    found, right, size, rows = [], [], [], []
    for members in _groups(groups):
        if len(np.unique(report[members])) < 2:
            continue
        for start in range(0, len(members), BLOCK):
            block = members[start : start + BLOCK]
            similar = queries[block] @ targets[members].T
            same = report[block][:, None] == report[members][None]
            best = np.where(same, similar, -np.inf).max(1, keepdims=True)
            found.append(((similar >= best) & ~same).sum(1))
            right.append(same.sum(1))
            size.append(np.full(len(block), len(members)))
            rows.append(block)
    if not rows:
        return np.empty(0, dtype=np.int64), dict.fromkeys(ks, np.nan), np.empty(0, dtype=np.int64)
    right_of, size_of = np.concatenate(right), np.concatenate(size)
    # The number of right ones among the first k of a shuffled list is hypergeometric.
    chance = {k: float(np.mean(hypergeom.sf(0, size_of, right_of, np.minimum(k, size_of)))) for k in ks}
    return np.concatenate(found), chance, np.concatenate(rows)


def _groups(groups: np.ndarray) -> Iterator[np.ndarray]:
    order = np.argsort(groups, kind="stable")
    _, starts = np.unique(groups[order], return_index=True)
    yield from np.split(order, starts[1:])
