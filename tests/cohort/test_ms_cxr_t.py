from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from medst.cohort.mimic_cxr import METADATA
from medst.cohort.ms_cxr_t import APART_FILE, FINDINGS, IMAGE_FILE, SENTENCE_FILE
from medst.cohort.options import Options
from medst.cohort.prepare import prepare
from medst.cohort.store import Cohort, open_cohort
from medst.errors import MedstError

IMAGE_COLUMNS = ["dicom_id", "previous_dicom_id", "study_id", "previous_study_id", "subject_id"]
SENTENCES = (
    "sentence_1,sentence_2,category,subset_name\n"
    '"The lungs, clear.",Clear lungs.,paraphrase,RadGraph\nNo edema.,Edema.,contradiction,swaps\n'
)


@pytest.fixture
def benchmark(tree: Any) -> Path:
    """Three studies of a patient; the first is compared with the second, that with the third, which has no text."""
    studies = [tree.add(50000001 + n, date=f"2150010{n + 1}", views=("PA",), split="test") for n in range(3)]
    studies[2].report = "nothing"
    tree.write()
    folder = tree.folder.parent / "ms-cxr-t"
    folder.mkdir()
    names = [*IMAGE_COLUMNS, *(f"{finding}_progression" for finding in FINDINGS)]
    lines = [",".join(names)]
    for now, before, values in (
        (studies[1], studies[0], "stable,,improving,,"),
        (studies[2], studies[1], "Worsening , ,,,stable"),
    ):
        ids = (now.image_id(0), before.image_id(0), str(now.study), str(before.study), str(now.patient))
        lines.append(",".join((*ids, values)))
    (folder / IMAGE_FILE).write_text("\n".join(lines) + "\n")
    (folder / SENTENCE_FILE).write_text(SENTENCES)
    return folder


def prepared(benchmark: Path, images: Path, max_rejected: float = 0.0) -> Cohort:
    path = benchmark.parent / f"comparisons-of-{images.name}"
    prepare("ms-cxr-t", benchmark, path, Options(images=images), workers=1, max_rejected=max_rejected)
    return open_cohort(path)


def test_comparisons_name_images_of_the_raw_tree(benchmark: Path, tree: Any) -> None:
    cohort = prepared(benchmark, tree.folder)
    ids = cohort.image_table["image_id"].to_list()
    studies = tree.studies
    assert cohort.pairs is None
    assert cohort.comparisons is not None
    assert cohort.comparisons.schema == {
        "finding": pl.String, "patient_id": pl.String, "study_id": pl.String,
        "current": pl.Int64, "previous": pl.Int64, "progression": pl.String,
    }  # fmt: skip
    rows = [(f, p, s, ids[now], ids[before], change) for f, p, s, now, before, change in cohort.comparisons.rows()]
    first, second, third = (study.image_id(0) for study in studies)
    assert rows == [
        ("consolidation", "p10000001", "s50000002", second, first, "stable"),
        ("consolidation", "p10000001", "s50000003", third, second, "worsening"),
        ("pleural_effusion", "p10000001", "s50000002", second, first, "improving"),
        ("pneumothorax", "p10000001", "s50000003", third, second, "stable"),
    ]
    assert cohort.sentences is not None
    assert cohort.sentences.rows() == [
        ("The lungs, clear.", "Clear lungs.", "paraphrase", "RadGraph"),
        ("No edema.", "Edema.", "contradiction", "swaps"),
    ]
    assert cohort.meta["counts"]["comparisons"] == 4


def test_comparisons_tied_to_a_cohort_have_its_pixels_and_name_what_it_lacks(
    benchmark: Path, tree: Any, rejections: Callable[[Path], list[tuple[str, str, str]]]
) -> None:
    source = tree.folder.parent / "cohort"
    prepare("mimic-cxr", tree.folder, source, workers=1)
    cohort, direct = prepared(benchmark, source), prepared(benchmark, tree.folder)
    assert cohort.comparisons is not None
    assert cohort.comparisons["study_id"].to_list() == ["s50000002", "s50000002"]
    np.testing.assert_array_equal(cohort.images, direct.images[:2])
    assert cohort.image_table.equals(direct.image_table.head(2))
    ((kind, image, reason),) = rejections(cohort.path)
    assert (kind, image) == ("row", tree.studies[2].image_id(0))
    assert "not in the cohort given for images" in reason
    assert cohort.meta["counts"]["comparisons_without_image"] == 2


def test_a_view_that_the_metadata_leaves_open_does_not_matter(benchmark: Path, tree: Any) -> None:
    tree.replace(METADATA, tree.table(METADATA).with_columns(ViewPosition=pl.lit(None, dtype=pl.String)))
    assert prepared(benchmark, tree.folder).image_table["view"].to_list() == ["frontal"] * 3


def test_an_unreadable_image_drops_its_comparisons(
    benchmark: Path, tree: Any, rejections: Callable[[Path], list[tuple[str, str, str]]]
) -> None:
    (tree.folder / tree.studies[0].image_path(0)).write_bytes(b"no picture")
    cohort = prepared(benchmark, tree.folder, max_rejected=1)
    assert cohort.comparisons is not None
    assert cohort.comparisons["study_id"].to_list() == ["s50000003", "s50000003"]
    assert rejections(cohort.path) == [("image", tree.studies[0].image_id(0), "not a picture")]


def test_other_images_are_another_source(benchmark: Path, tree: Any) -> None:
    prepared(benchmark, tree.folder)
    tree.replace(METADATA, tree.table(METADATA).reverse())
    with pytest.raises(MedstError, match=r"was made from other files \(mimic-cxr-2.0.0-metadata.csv\)"):
        prepared(benchmark, tree.folder)


def spoil(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        (
            IMAGE_FILE,
            "improving",
            "better",
            "'better' is not a progression; it must be one of improving, stable, worsening",
        ),
        (IMAGE_FILE, "edema_progression", "oedema", f"{IMAGE_FILE} has no column edema_progression"),
        (SENTENCE_FILE, "paraphrase", "same", "category 'same' is neither paraphrase nor contradiction"),
        (SENTENCE_FILE, "subset_name", "subset", f"{SENTENCE_FILE} has no column subset_name"),
        (SENTENCE_FILE, "No edema.", "", "a sentence is empty"),
    ],
)
def test_a_table_with_invalid_values_is_refused(
    benchmark: Path, tree: Any, file: str, old: str, new: str, sentence: str
) -> None:
    spoil(benchmark / file, old, new)
    with pytest.raises(MedstError, match=sentence):
        prepared(benchmark, tree.folder)


def test_missing_folders_and_files_are_named(benchmark: Path, tree: Any, tmp_path: Path) -> None:
    with pytest.raises(MedstError, match=f"nowhere: no such folder; give the one that holds {IMAGE_FILE}"):
        prepare("ms-cxr-t", tmp_path / "nowhere", tmp_path / "x", Options(images=tree.folder))
    with pytest.raises(MedstError, match=f"nowhere: no such folder; give the one that holds {METADATA}"):
        prepare("ms-cxr-t", benchmark, tmp_path / "x", Options(images=tmp_path / "nowhere"))
    (benchmark / SENTENCE_FILE).unlink()
    with pytest.raises(MedstError, match=f"{SENTENCE_FILE}: no such file"):
        prepare("ms-cxr-t", benchmark, tmp_path / "x", Options(images=tree.folder))


def test_an_unfinished_cohort_of_images_is_refused(benchmark: Path, tree: Any, tmp_path: Path) -> None:
    (tmp_path / "cohort.part").mkdir()
    with pytest.raises(MedstError, match="this cohort is not finished"):
        prepare("ms-cxr-t", benchmark, tmp_path / "x", Options(images=tmp_path / "cohort"))


def test_images_of_other_patients_are_refused(benchmark: Path, raw: Path, tmp_path: Path) -> None:
    spoil(benchmark / IMAGE_FILE, "00000000-00000000-00000000-00000000", "1-2-3-4")
    with pytest.raises(MedstError, match="holds none of the 3 images that"):
        prepare("ms-cxr-t", benchmark, tmp_path / "x", Options(images=raw))


def test_new_and_resolved_findings_of_a_second_table_are_kept_apart(benchmark: Path, tree: Any) -> None:
    table = (benchmark / IMAGE_FILE).read_text()
    apart = "\n".join(table.splitlines()[:2]).replace("stable,,improving,,", "worsening,,improving,,") + "\n"
    (benchmark / APART_FILE).write_text(apart)
    cohort = prepared(benchmark, tree.folder)
    assert cohort.comparisons is not None
    found = cohort.comparisons.filter(pl.col("finding").str.contains(","))
    assert found.select("finding", "progression").rows() == [
        ("consolidation, new or resolved", "worsening"),
        ("pleural_effusion, new or resolved", "improving"),
    ]
    assert cohort.meta["counts"]["new_or_resolved_comparisons"] == 2
    assert cohort.meta["counts"]["comparisons"] == 6
    assert cohort.meta["rows"]["read"] == cohort.meta["rows"]["kept"] == 3


def test_a_stable_finding_is_neither_new_nor_resolved(benchmark: Path, tree: Any) -> None:
    (benchmark / APART_FILE).write_text((benchmark / IMAGE_FILE).read_text())
    with pytest.raises(MedstError, match="'stable' is neither new"):
        prepared(benchmark, tree.folder)
