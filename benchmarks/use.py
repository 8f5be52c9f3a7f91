"""How long a person waits for an answer, and what the answers without training are worth on the phantom.

    python benchmarks/use.py [--demo medst-demo]

With the paper's ViT-B/16 and BERT, weights drawn at random, two CPU cores: encoding a study, a phrase over a patient's eight
studies with the drawing of its heat maps, a comparison. Exact search among made-up rows. With a finished demo: progression
from prompts beside prompts that name the change, against the labels of its comparisons; and the share of one-sided findings
of held-out studies for which the heat lies more on the finding's side (chance 50 %).
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features import made_up
from machine import keep
from medst.app.html import timeline_html
from medst.app.search import nearest
from medst.app.studies import Backend
from medst.app.uploads import SHOWN_SIDE, shrink
from medst.cohort.ms_cxr_t import APART
from medst.cohort.store import open_cohort
from medst.encode import image_features
from medst.evaluate.intervals import Ranked, Statistic, accuracy, bootstrap, macro_accuracy
from medst.use import Model, Study, load, read_picture, stored_picture
from medst.use.compare import DEFAULT_MARGIN, presence_axis, presence_prompts

SEARCHED = (100_000, 1_000_000, 4_000_000)
CHANGES = {"worsening": ("{} has worsened", "increased {}"), "improving": ("{} has improved", "decreased {}")}


def best(call: Callable[[], Any], times: int = 3) -> float:
    """Seconds of the fastest call."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return round(min(found), 3)


def waiting() -> dict[str, Any]:
    """Seconds with a ViT-B; pictures of noise of a radiograph's size, shown as an upload is."""
    model = made_up("paper")
    rng = np.random.default_rng(0)
    pictures = [shrink(read_picture(rng.integers(0, 256, (3056, 2544), dtype=np.uint8)), SHOWN_SIDE) for _ in range(16)]
    studies = [Study(pictures[2 * i], pictures[2 * i + 1]) for i in range(8)]
    backend = Backend(model, None)
    opened = None
    for study in studies:
        opened = backend.add_study(opened, study)
    assert opened is not None
    shown = opened

    def phrase() -> None:
        timeline_html(shown, backend.ground(shown, "right pleural effusion"))

    return {
        "a study, frontal alone": best(lambda: model.encode_image(studies[0].frontal)),
        "a study, frontal and lateral": best(lambda: model.encode_image(studies[0])),
        "a phrase: heat maps of 8 studies with laterals, drawn for the page": best(phrase),
        "a phrase: its embedding and similarities alone": best(lambda: backend.ground(shown, "right pleural effusion")),
        "a comparison": best(lambda: backend.compare(shown, 0, 1, "pleural effusion")),
    }


def searching() -> dict[str, Any]:
    """Seconds and GB a question, 128 numbers a study."""
    found = {}
    for count in SEARCHED:
        rows = np.random.default_rng(0).standard_normal((count, 128), dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        assert nearest(rows, rows[7], 6)[0][0] == 7
        found[f"{count:,} studies"] = {
            "seconds": best(lambda rows=rows: nearest(rows, rows[7], 6)),
            "GB": rows.nbytes / 1e9,
        }
    return found


def progressions(model: Model, demo: Path) -> dict[str, Any]:
    """AUROC of worsening against improving (mean over findings), and balanced accuracy of all three, with intervals."""
    cohort = open_cohort(demo / "comparisons")
    assert cohort.comparisons is not None
    table = cohort.comparisons.filter(~pl.col("finding").str.ends_with(APART))
    prior, current = (
        image_features(model, cohort, table[name].to_numpy()).embedding for name in ("previous", "current")
    )
    finding, truth = table["finding"].to_numpy(), table["progression"].to_numpy()
    names = sorted(set(finding.tolist()))
    presence, now_alone = np.zeros(len(truth)), np.zeros(len(truth))
    change_now, change_both = np.zeros(len(truth)), np.zeros(len(truth))
    for name in names:
        of = finding == name
        axis = presence_axis(model.encode_text(presence_prompts(name)).embedding).numpy()
        spoken = {
            k: model.encode_text([t.format(name.replace("_", " ")) for t in v]).embedding.mean(0).numpy()
            for k, v in CHANGES.items()
        }
        direction = spoken["worsening"] - spoken["improving"]
        presence[of], now_alone[of] = (current[of] - prior[of]) @ axis, current[of] @ axis
        change_now[of], change_both[of] = current[of] @ direction, (current[of] - prior[of]) @ direction
    moved = truth != "stable"

    patients = table["patient_id"].to_numpy()

    def auroc(score: np.ndarray) -> list[float]:
        each = [Ranked(truth[of] == "worsening", score[of]) for of in (moved & (finding == name) for name in names)]
        rows = [moved & (finding == name) for name in names]

        def mean(weights: np.ndarray) -> float:
            return float(np.mean([one.auroc(weights[of]) for one, of in zip(each, rows, strict=True)]))

        return with_interval(mean, patients)

    margin = DEFAULT_MARGIN if model.margin is None else model.margin.value
    said = np.where(presence > margin, "worsening", np.where(presence < -margin, "improving", "stable"))
    return {
        "comparisons": len(truth),
        "presence, difference of both studies (compare)": auroc(presence),
        "presence, later study alone": auroc(now_alone),
        "prompts that name the change, later study alone": auroc(change_now),
        "prompts that name the change, difference of both studies": auroc(change_both),
        "balanced accuracy of compare, chance 0.333": with_interval(
            partial(macro_accuracy, said == truth, truth), patients
        ),
    }


def with_interval(statistic: Statistic, patients: Any) -> list[float]:
    """A value and its 95 % interval over patients."""
    value = statistic(np.ones(len(patients)))
    return [round(float(number), 3) for number in (value, *(bootstrap(statistic, patients) or ()))]


def sides(model: Model, demo: Path) -> dict[str, Any]:
    """Share of one-sided findings whose heat has its mean, or its peak, on the finding's side of the frontal view."""
    cohort = open_cohort(demo / "cohort")
    assert cohort.pairs is not None
    truth = pl.read_parquet(demo / "raw" / "ground_truth.parquet")
    truth = truth.with_columns(study_id="s" + pl.col("study_id").cast(pl.String))
    truth = truth.filter(
        pl.len().over("study_id", "finding") == 1, pl.col("side") != "bilateral", pl.col("severity") > 0.3
    )
    table = truth.join(cohort.pairs.filter(pl.col("split") != "train"), on="study_id")
    height, width = cohort.image_table["height"], cohort.image_table["width"]
    pictures = [stored_picture(cohort.images[row], height[row], width[row]) for row in table["frontal"]]
    images = model.encode_image(pictures)
    found: dict[str, Any] = {"findings": table.height}
    for name, phrase in (("finding", "{finding}"), ("there is a side finding", "there is a {side} {finding}")):
        mean, peak = [], []
        for i, row in enumerate(table.iter_rows(named=True)):
            text = model.encode_text(phrase.format(finding=row["finding"].replace("_", " "), side=row["side"]))
            grid = (images.patches[i, 0] @ text.words[0].mean(0)).numpy()
            half = grid.shape[1] // 2
            right_of_patient = grid[:, :half].mean() > grid[:, -half:].mean()  # on the picture's left
            mean.append(right_of_patient == (row["side"] == "right"))
            column = int(grid.argmax()) % grid.shape[1]
            middle = (grid.shape[1] - 1) / 2
            peak.append(0.5 if column == middle else (column < middle) == (row["side"] == "right"))
        found[name] = {
            kind: with_interval(partial(accuracy, hits), table["patient_id"].to_numpy())
            for kind, hits in (("mean", mean), ("peak", peak))
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path)
    demo = parser.parse_args().demo
    found: dict[str, Any] = {"seconds, ViT-B/16": waiting(), "exact search": searching()}
    if demo is not None:
        model = load(demo / "run" / "last", device="cpu")
        found["progression, demo's model"] = progressions(model, demo)
        found["heat on the finding's side, demo's model"] = sides(model, demo)
    keep("use_cpu", found)


if __name__ == "__main__":
    main()
