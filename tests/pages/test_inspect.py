"""The page of a cohort and the files beside it."""

import base64
import csv
import hashlib
import io
import json
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from medst.cli import main
from medst.cohort.prepare import prepare
from medst.cohort.store import open_cohort
from medst.errors import MedstError
from medst.pages.cohort_summary import summarise
from medst.pages.inspect import inspect, verdict
from medst_phantom.others import write_tree

from .page_reader import Reader


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_page_and_its_numbers_lie_beside_the_cohort_which_stays_as_it_is(
    phantom_cohort: Path, tmp_path: Path
) -> None:
    cohort = tmp_path / "cohort"
    shutil.copytree(phantom_cohort, cohort)
    before = digests(cohort)
    main(["inspect", str(cohort), "--pairs", "5"])
    assert digests(cohort) == before
    assert {path.name for path in tmp_path.glob("[!.]*")} == {"cohort", "cohort.html", "cohort-numbers.json"}
    numbers = json.loads((tmp_path / "cohort-numbers.json").read_text())
    html = (tmp_path / "cohort.html").read_text()
    assert f"{numbers['splits'][0]['studies']:,}" in html
    assert html.count('<article class="card">') == 5
    assert "Time between a patient’s studies" in html
    first = html
    inspect(cohort, pairs=5)
    assert (tmp_path / "cohort.html").read_text() == first
    inspect(cohort, pairs=5, seed=1)
    assert (tmp_path / "cohort.html").read_text() != first


def test_a_page_inside_a_cohort_is_refused(phantom_cohort: Path, tmp_path: Path) -> None:
    """A cohort inside a cohort's folder, and one whose name is that of the file."""
    outer = shutil.copytree(phantom_cohort, tmp_path / "outer")
    inner = shutil.copytree(phantom_cohort, outer / "cohort")
    before = digests(inner) | {"outer": (outer / "cohort.json").read_bytes().hex()}
    with pytest.raises(MedstError, match="lies in a cohort"):
        inspect(inner)
    assert digests(inner) | {"outer": (outer / "cohort.json").read_bytes().hex()} == before
    assert not (outer / "cohort.html").exists()


def test_a_damaged_rejected_csv_is_reported_in_a_sentence(phantom_cohort: Path, tmp_path: Path) -> None:
    cohort = shutil.copytree(phantom_cohort, tmp_path / "cohort")
    for content in (b"", b"\xff\xfe\x00", b"one,two\n1,2\n"):
        (cohort / "rejected.csv").write_bytes(content)
        with pytest.raises(MedstError, match=r"rejected\.csv is damaged"):
            inspect(cohort)
    (cohort / "rejected.csv").unlink()
    (cohort / "rejected.csv").mkdir()
    with pytest.raises(MedstError, match=r"rejected\.csv' is a folder, not a regular file\.$"):
        inspect(cohort)


def test_the_page_fetches_nothing_and_names_no_path(phantom_cohort: Path, tmp_path: Path) -> None:
    html = inspect(phantom_cohort, tmp_path / "page.html").read_text()
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", html)
    assert "<script" not in html
    assert str(phantom_cohort.parent) not in html


def test_reports_are_escaped(phantom_cohort: Path, tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    shutil.copytree(phantom_cohort, cohort)
    pairs = pl.read_parquet(cohort / "pairs.parquet")
    pairs.with_columns(report=pl.lit('<script>alert("x")</script> & more')).write_parquet(cohort / "pairs.parquet")
    meta = json.loads((cohort / "cohort.json").read_text())
    (cohort / "cohort.json").write_text(json.dumps(meta | {"files": {}}))
    html = inspect(cohort, pairs=2).read_text()
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_the_page_opens_with_data_date_verdict_contents_and_a_csv_file(phantom_cohort: Path, tmp_path: Path) -> None:
    html = inspect(phantom_cohort, tmp_path / "page.html").read_text()
    summary = json.loads((tmp_path / "page-numbers.json").read_text())
    read = Reader(html)
    header = " ".join(" ".join(read.text).split()).partition("Download all numbers")[0]
    date = datetime.fromtimestamp((phantom_cohort / "cohort.json").stat().st_mtime, UTC)
    for text in (f"Cohort {phantom_cohort.name}", "mimic-cxr", f"prepared {date:%Y-%m-%d}"):
        assert text in header
    assert verdict(open_cohort(phantom_cohort), summary) in header
    links = [link["href"] for link in read.all("a")]
    assert links[:-1] == [f"#{section['id']}" for section in read.all("section")]
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(links[-1].partition(",")[2]).decode())))
    pairs = [row for row in rows if (row["table"], row["column"]) == ("splits", "pairs")]
    assert {row["row"]: int(row["value"]) for row in pairs} == {row["split"]: row["pairs"] for row in summary["splits"]}
    assert len([row for row in rows if row["table"] == "labels"]) == 4 * len(summary["labels"])


def test_the_verdict_says_what_a_cohort_is_ready_for(phantom_cohort: Path, phantom_comparisons: Path) -> None:
    cohort = open_cohort(phantom_cohort)
    summary = summarise(cohort)
    assert cohort.pairs is not None
    train = next(row for row in summary["splits"] if row["split"] == "train")
    assert verdict(cohort, summary).startswith(f"Ready to train: {train['pairs']:,} pairs of {train['patients']:,} pat")
    alone = replace(cohort, pairs=cohort.pairs.filter(split="test"))
    assert re.fullmatch(
        r"Not ready to train: split train has 0 sequences, and a batch needs \d+; split valid is empty\.",
        verdict(alone, summarise(alone)),
    )
    comparisons = open_cohort(phantom_comparisons)
    found = verdict(comparisons, summarise(comparisons))
    assert re.fullmatch(r"Ready to evaluate temporal-image \(.* changes\) and temporal-text \(.*no pairs\.", found)


def test_comparisons_have_a_page_without_empty_headings(phantom_comparisons: Path, tmp_path: Path) -> None:
    html = inspect(phantom_comparisons, tmp_path / "page.html", pairs=4).read_text()
    headings = re.findall(r"<h2>(.*?)</h2>", html)
    assert headings[:2] == ["Comparisons", "Images"]
    assert "Reports" not in headings
    assert html.count('class="tag">before<') == 4


@pytest.mark.parametrize("name", ["rsna", "chexpert-plus"])
def test_other_cohorts_have_a_page(tmp_path: Path, name: str) -> None:
    write_tree(name, tmp_path / "raw", patients=10, seed=2, workers=1)
    prepare(name, tmp_path / "raw", tmp_path / "cohort", workers=1)
    html = inspect(tmp_path / "cohort").read_text()
    headings = re.findall(r"<h2>(.*?)</h2>", html)
    if name == "rsna":
        assert headings[0] == "Classes"
        assert "no pneumonia" in html
    else:
        assert headings[0] == "Patients over time"
        assert "gives the order of a patient’s studies, not their dates" in html
        assert "Time between" not in html
        assert not re.search(r"20\d\d-\d\d-\d\d", html.partition("</header>")[2])


def test_wrong_arguments_are_one_sentence(
    phantom_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, sentence in (
        ([str(tmp_path / "none")], "no cohort here"),
        ([str(phantom_cohort), "--pairs", "-1"], "--pairs and --seed must be 0 or more"),
        ([str(phantom_cohort), "--out", str(phantom_cohort / "page.html")], "lies in a cohort, which stays as it is"),
        ([str(phantom_cohort), "--out", str(tmp_path / "x.json")], "--out is the page's name, for instance x.html"),
    ):
        with pytest.raises(SystemExit, match="1"):
            main(["inspect", *arguments])
        assert sentence in capsys.readouterr().err
    with pytest.raises(MedstError):
        inspect(tmp_path)
