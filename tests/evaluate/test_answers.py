"""Protocol answers: every number against scikit-learn, and every fault of a file of answers."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, cohen_kappa_score, confusion_matrix, recall_score

from medst.cli import main
from medst.cohort.store import Cohort, open_cohort
from medst.evaluate import progression_svm
from medst.evaluate.answers import BESIDE, evaluate_answers, read_answers
from medst.evaluate.intervals import ROUNDS
from medst.evaluate.runner import evaluate
from medst.evaluate.subjects import Nothing, Thumbnails
from medst.evaluate.task import STRICT
from medst.evaluate.temporal_image import temporal_image
from medst.pages.report import report
from medst.pages.tables import tables_of

PROGRESSIONS = ("improving", "stable", "worsening")
MIRROR = {"improving": "worsening", "stable": "stable", "worsening": "improving"}
DOCS = Path(__file__).parents[2] / "docs" / "other-models.md"
Line = dict[str, Any]


@pytest.fixture
def folder(write_cohort: Callable[..., Path], make_comparisons: Callable[..., pl.DataFrame]) -> Path:
    """Comparisons of two findings, of a third that is too rare, and of edema that is new or resolved."""
    counts = {"edema": (12, 14, 11), "pneumothorax": (15, 10, 13), "pneumonia": (4, 9, 9)}
    table = make_comparisons(**counts, **{"edema, new or resolved": (10, 0, 10)})
    # These are other pairs of images than edema's.
    apart = pl.col("finding") == "edema, new or resolved"
    table = table.with_columns(previous=pl.when(apart).then((pl.col("current") + 20) % 48).otherwise("previous"))
    images = pl.DataFrame({"row": range(48), "image_id": [f"i{row}" for row in range(48)]})
    return write_cohort("comparisons", "ms-cxr-t", comparisons=table, images=images)


def lines_of(cohort: Cohort, swapped: float = 1.0, seed: int = 0) -> list[Line]:
    """An answer to every comparison, right in two of three, and to this share of the swapped ones."""
    rng = np.random.default_rng(seed)
    lines = []
    assert cohort.comparisons is not None
    for row in cohort.comparisons.iter_rows(named=True):
        right = row["progression"] if rng.random() < 2 / 3 else str(rng.choice(PROGRESSIONS))
        pair, finding = (f"i{row['current']}", f"i{row['previous']}"), row["finding"].partition(",")[0]
        lines.append({"current": pair[0], "prior": pair[1], "finding": finding, "answer": right})
        if rng.random() < swapped:
            back = MIRROR[right] if rng.random() < 0.7 else "stable"
            lines.append({"current": pair[1], "prior": pair[0], "finding": finding, "answer": back})
    return lines


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def values(content: dict[str, Any], model: str = "trained") -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["metric"], row["finding"]): row for row in content["results"] if row["model"] == model}


def expected(cohort: Cohort, lines: list[Line], finding: str) -> tuple[list[str], list[str], list[str], list[str]]:
    """True and given progressions, "none" where there is none; answers to the swapped pairs; patients."""
    said = {(line["current"], line["prior"], line["finding"]): line["answer"] for line in lines}
    assert cohort.comparisons is not None
    rows = list(cohort.comparisons.filter(finding=finding).iter_rows(named=True))
    name = finding.partition(",")[0]
    pairs = [(f"i{row['current']}", f"i{row['previous']}") for row in rows]
    given = [said.get((*pair, name), "none") for pair in pairs]
    back = [said.get((*pair[::-1], name), "none") for pair in pairs]
    return [row["progression"] for row in rows], given, back, [row["patient_id"] for row in rows]


def test_each_number_agrees_with_scikit_learn(folder: Path, tmp_path: Path) -> None:
    cohort = open_cohort(folder)
    lines = lines_of(cohort, swapped=0.6)
    dropped = [line for number, line in enumerate(lines) if number % 11]
    found = evaluate_answers(write(tmp_path / "a.jsonl", dropped), folder, None, baselines=False)
    scores, averaged = values(found), list[list[float]]()
    for finding in ("edema", "edema, new or resolved", "pneumothorax"):
        true, given, back, _ = expected(cohort, dropped, finding)
        assert "none" in given
        labels = [name for name in PROGRESSIONS if name in true]
        recalls = recall_score(true, given, labels=labels, average=None)
        whole = [accuracy_score(true, given), float(np.mean(recalls))]
        assert scores["accuracy", finding]["value"] == pytest.approx(whole[0], abs=1e-6)
        assert scores["macro accuracy", finding]["value"] == pytest.approx(whole[1], abs=1e-6)
        for name, recall in zip(labels, recalls, strict=True):
            assert scores[f"recall of {name}", finding]["value"] == pytest.approx(recall, abs=1e-6)
            assert scores[f"recall of {name}", finding]["n"] == true.count(name)
        both = [(one, MIRROR[other]) for one, other in zip(given, back, strict=True) if "none" not in (one, other)]
        assert 0 < len(both) < len(true)
        consistent, mirrored = zip(*both, strict=True)
        agreement = accuracy_score(consistent, mirrored)
        row = scores["swap consistency", finding]
        assert (row["n"], row["value"]) == (len(both), pytest.approx(agreement, abs=1e-6))
        kappa = cohen_kappa_score(consistent, mirrored)  # (agreement - chance) / (1 - chance)
        assert (agreement - row["chance"]) / (1 - row["chance"]) == pytest.approx(kappa, abs=1e-5)
        matrix = confusion_matrix(true, given, labels=[*PROGRESSIONS, "none"])[:3, :3]
        assert found["details"]["temporal-image/ms-cxr-t"]["confusion"][finding] == matrix.tolist()
        if "," not in finding:
            averaged.append([*whole, agreement])
    for metric, mean in zip(("accuracy", "macro accuracy", "swap consistency"), np.mean(averaged, 0), strict=True):
        assert scores[metric, "average"]["value"] == pytest.approx(mean, abs=1e-6)
    assert all(row["folds"] is None and row["std"] is None and row["seeds"] == [] for row in scores.values())
    assert [left["finding"] for left in found["left_out"]] == ["pneumonia"]  # as under strict: 4 patients in 5 folds
    recall = balanced_accuracy_score(*expected(cohort, lines, "edema")[:2])  # without gaps it is scikit-learn's own
    whole = evaluate_answers(write(tmp_path / "b.jsonl", lines), folder, None, baselines=False)
    assert values(whole)["macro accuracy", "edema"]["value"] == pytest.approx(recall, abs=1e-6)


def test_intervals_draw_patients_and_the_lead_is_paired(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progression_svm, "CHOICES_OF_C", (0.01,))  # quicker
    cohort = open_cohort(folder)
    lines = lines_of(cohort)
    found = evaluate_answers(write(tmp_path / "a.jsonl", lines), folder, None)
    true, given, _, patients = (np.array(one) for one in expected(cohort, lines, "edema"))
    unique, place = np.unique(patients, return_inverse=True)
    rng, draws = np.random.default_rng(0), []
    for _ in range(ROUNDS):
        weights = rng.multinomial(len(unique), np.full(len(unique), 1 / len(unique)))[place]
        draws.append(accuracy_score(true, given, sample_weight=weights))
    row = values(found)["accuracy", "edema"]
    assert [row["low"], row["high"]] == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=1e-6)

    for name, baseline in {"majority answer": Nothing(), "thumbnails": Thumbnails()}.items():
        strict = temporal_image(baseline, cohort, replace(STRICT, bootstrap=False))
        theirs = {(score.metric, score.finding): round(score.value, 6) for score in strict.scores}
        assert {key: row["value"] for key, row in values(found, name).items()} == theirs
    lead = next(one for one in found["leads"] if one["finding"] == "average")
    best = max(BESIDE, key=lambda name: values(found, name)["macro accuracy", "average"]["value"])
    own, other = (values(found, name)["macro accuracy", "average"]["value"] for name in ("trained", best))
    assert (lead["baseline"], lead["value"]) == (best, pytest.approx(own - other, abs=2e-6))
    assert lead["low"] < lead["value"] < lead["high"]


def test_missing_unknown_repeated_and_unreadable_answers_are_named(folder: Path, tmp_path: Path) -> None:
    lines: list[Any] = lines_of(open_cohort(folder))
    first, second = lines[0], lines[2]
    total = len([row for row in lines if row["finding"] != "pneumonia"]) // 2
    odd = [
        first | {"answer": first["answer"].upper() + " "},
        second | {"current": "elsewhere"},
        second | {"finding": "gout"},
        first | {"prior": first["current"]},
        second | {"answer": "I can't tell"},
        "{not json",
        '{"current": "i1"}',
        "[]",
        "",
        second | {"current": 5},
    ]
    lines[2:3] = []  # the only answer to that comparison
    at = len(lines)
    found = evaluate_answers(write(tmp_path / "a.jsonl", [*lines, *odd]), folder, None, baselines=False)
    missing, unreadable, unknown, repeated, trained_on = found["warnings"]
    assert missing == (
        f"1 of {total} comparisons have no answer and count as wrong: edema of {second['current']} after "
        f"{second['prior']}."
    )
    assert unreadable.startswith("a.jsonl: lines that can't be read as an answer: 5: ")
    assert f'line {at + 5} (the answer "I can\'t tell" is not one of improving, stable, worsening)' in unreadable
    assert f"line {at + 6} (" in unreadable
    assert unreadable.endswith(" and others.")
    assert unknown == (
        f"a.jsonl: lines that answer no comparison of the cohort: 3: line {at + 2} (no image elsewhere), "
        f"line {at + 3} (no finding 'gout'), line {at + 4} (these images are not compared)."
    )
    assert repeated == f"a.jsonl: lines that repeat an answer: 1: line {at + 1} (as line 1)."
    assert "unknown" in trained_on
    assert found["leaks"] == {"ms-cxr-t": "unknown"}
    last = [row for row in found["details"]["temporal-image/ms-cxr-t"]["predictions"] if row["predicted"] is None]
    assert len(last) == 1
    assert values(found)["accuracy", "edema"]["n"] == 37


def test_without_swapped_answers_the_file_says_so(folder: Path, tmp_path: Path) -> None:
    lines = lines_of(open_cohort(folder), swapped=0)
    found = evaluate_answers(write(tmp_path / "a.jsonl", lines), folder, None, baselines=False)
    assert not [row for row in found["results"] if row["metric"] == "swap consistency"]
    reason = "no comparison was also answered with its studies exchanged"
    assert [left["reason"] for left in found["left_out"] if left["finding"] == "swap consistency"] == [reason]


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *map(str, arguments)])
    assert ended.value.code
    said = capsys.readouterr().err.strip()
    assert "Traceback" not in said
    return " ".join(said.split())


def test_a_wrong_file_is_one_sentence(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = lines_of(open_cohort(folder))
    ask = ("temporal-image", folder, "--answers")
    other = "stable" if lines[0]["answer"] != "stable" else "improving"
    twice = write(tmp_path / "twice.jsonl", [*lines, lines[0] | {"answer": other}])
    said = refused(capsys, *ask, twice)
    assert f"contradict each other: lines 1 and {len(lines) + 1} on edema of i0 after i7; keep one" in said
    assert "no such file; give --answers a JSON-lines file" in refused(capsys, *ask, tmp_path / "none.jsonl")
    assert "is a folder, not a regular file; give --answers" in refused(capsys, *ask, tmp_path)
    empty = write(tmp_path / "empty.jsonl", [])
    assert "answers no comparison of" in refused(capsys, *ask, empty)
    (tmp_path / "picture.jsonl").write_bytes(b"\x89PNG\r\n\xff\xfe\n" + b"[" * 100000)
    said = refused(capsys, *ask, tmp_path / "picture.jsonl")
    assert "answers no comparison of" in said
    assert "line 1 (" in said
    elsewhere = write(tmp_path / "elsewhere.jsonl", [line | {"current": f"x{n}"} for n, line in enumerate(lines)])
    assert "line 1 (no image x0), line 2 (no image x1)" in refused(capsys, *ask, elsewhere)
    assert not list(tmp_path.glob("results*"))


def test_a_wrong_mixture_is_one_sentence(
    folder: Path, tmp_path: Path, model_folder: Path, cohort: Cohort, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "a.jsonl", lines_of(open_cohort(folder)))
    given = ("--answers", file)
    sentence = "--answers takes the place of MODEL; give one COHORT with comparisons and no model."
    assert sentence in refused(capsys, "temporal-image", model_folder, folder, *given)
    assert sentence in refused(capsys, "temporal-image", model_folder, *given)
    said = refused(capsys, "temporal-image", folder, *given, "--embeddings", file)
    assert "--answers and --embeddings are of two systems; give one of them." in said
    assert "--answers is for temporal-image alone, not for all." in refused(capsys, "all", folder, *given)
    assert "has no comparisons" in refused(capsys, "temporal-image", cohort.path, *given)
    said = refused(capsys, "temporal-image", folder, *given, "--protocol", "paper")
    assert "--answers has a protocol of its own and no model; leave out --protocol." in said
    assert "leave out --features" in refused(capsys, "temporal-image", folder, *given, "--features", "both")
    assert "--leaks refuse needs a record" in refused(capsys, "temporal-image", folder, *given, "--leaks", "refuse")
    assert "--patients goes with --by" in refused(capsys, "temporal-image", folder, *given, "--patients", file)
    assert not list(tmp_path.glob("results*"))


def test_the_command_writes_prints_and_resumes(
    folder: Path, tmp_path: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = lines_of(open_cohort(folder))[:-9]
    (tmp_path / "llm").mkdir()
    file = write(tmp_path / "llm" / "a.jsonl", lines)
    ask = ["evaluate", "temporal-image", str(folder), "--answers", str(file), "--by", "view", "--no-baselines"]
    main(ask)
    said = capsys.readouterr().out
    out = tmp_path / "llm" / "results-answers.json"
    content = json.loads(out.read_text())
    assert (content["protocol"], content["model"]["recipe"]) == ("answers", "answers")
    assert str(tmp_path) not in out.read_text()
    assert "temporal-image on ms-cxr-t: macro accuracy\n" in said
    assert "have no answer and count as wrong" in said
    assert content["groups"]
    before = out.stat().st_mtime_ns
    main(ask)
    assert out.stat().st_mtime_ns == before
    write(file, lines[:-1])
    said = refused(capsys, *ask[1:])
    assert "holds numbers of another model; give another --out, or --replace" in said
    main([*ask, "--replace"])

    strict = evaluate(
        model_folder, folder, tmp_path / "run" / "results.json", tasks=["temporal-image"], baselines=False
    )
    (tmp_path / "llm" / "settings.json").write_text("[]")  # answers in the folder of a run are not that run's
    page = report([tmp_path / "run", tmp_path / "llm"], tmp_path / "page.html").read_text()
    assert "temporal-image on ms-cxr-t, protocol answers" in page
    assert "protocol strict" in page
    assert "count as wrong" in page
    assert "<dt>Answers" in page
    verdict = re.search(r"Answers: ([^<]*)", page)
    assert "temporal-image on ms-cxr-t" in page.partition("Answers: ")[0]
    assert verdict is not None
    assert "best baseline: temporal-image on ms-cxr-t (macro accuracy" in verdict[1]
    tables = tables_of([tmp_path / "run", tmp_path / "llm"], "markdown")
    assert "**temporal-image on ms-cxr-t, protocol answers**" in tables
    for content in (strict, json.loads(out.read_text())):
        assert f"{100 * values(content)['macro accuracy', 'average']['value']:.1f} %" in tables


def test_the_loop_of_the_documents_scores_a_perfect_system(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = DOCS.read_text().partition("## Language models")[2]
    loop = next(block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "open_cohort" in block)
    cohort = open_cohort(folder)
    assert cohort.comparisons is not None
    truth = {}
    for row in cohort.comparisons.iter_rows(named=True):
        now, before = (cohort.images[row[name]].tobytes() for name in ("current", "previous"))
        finding = row["finding"].partition(",")[0]
        truth[now, before, finding] = row["progression"]
        truth[before, now, finding] = MIRROR[row["progression"]]
    monkeypatch.chdir(folder.parent)
    exec(loop, {"ask": lambda now, before, finding: truth[now.tobytes(), before.tobytes(), finding].title()})
    found = evaluate_answers(Path("answers.jsonl"), folder, None, baselines=False)
    assert {row["value"] for row in found["results"]} == {1.0}
    assert {row["n"] for (metric, _), row in values(found).items() if metric == "swap consistency"} == {37, 38, 20, 75}
    assert len(found["warnings"]) == 1  # that nobody knows whom the system was trained on
    assert not read_answers(Path("answers.jsonl")).repeated
