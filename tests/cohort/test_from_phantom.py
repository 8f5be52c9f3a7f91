"""Every data set is prepared from its phantom tree, as `medst phantom` writes it."""

from pathlib import Path

import numpy as np
import polars as pl
import pydicom
import pytest

from medst.cli import main
from medst.cohort.images import Reading, read_grey
from medst.cohort.options import Options
from medst.cohort.prepare import prepare
from medst.cohort.store import open_cohort


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "raw"
    for tree in (["mimic-cxr"], ["rsna", "open-i"], ["all"]):  # one after the other into the same folder
        main(["phantom", str(out), "--patients", "24", "--seed", "8", "--workers", "2", "--trees", *tree])
    return out


@pytest.mark.parametrize("name", ["rsna", "covidx", "chexpert-plus", "open-i"])
def test_nothing_is_left_out(raw: Path, tmp_path: Path, name: str) -> None:
    meta = prepare(name, raw / name, tmp_path / name, workers=2, max_rejected=0)
    cohort = open_cohort(tmp_path / name)
    assert meta["dataset"] == name
    assert meta["synthetic"] is True
    assert meta["counts"]["images"] == len(cohort.images) == cohort.image_table.height
    assert (cohort.images.reshape(len(cohort.images), -1).max(1) > 100).all()
    assert (cohort.pairs is None) == (name in ("rsna", "covidx"))
    assert (cohort.labelled is None) == (cohort.pairs is not None)
    left = pl.read_csv(tmp_path / name / "rejected.csv").filter(pl.col("kind") != "text")
    assert left.is_empty()


def test_bones_are_bright_however_a_file_stores_them(raw: Path) -> None:
    """Corners of a chest image are darker than its middle, in every style of DICOM, by maximum and by window."""
    styles = set()
    for path in sorted((raw / "rsna" / "stage_2_train_images").iterdir()):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        styles.add((header.file_meta.TransferSyntaxUID, header.PhotometricInterpretation, header.BitsStored))
        for intensity in ("maximum", "window"):
            picture = read_grey(path, Reading(intensity=intensity)).astype(float)
            height, width = picture.shape
            middle = picture[height // 2 :, width * 2 // 5 : width * 3 // 5].mean()
            corners = np.mean([picture[:20, :20].mean(), picture[:20, -20:].mean()])
            assert middle > corners + 20, (path.name, intensity)
    assert len(styles) > 12


def test_png_and_dicom_of_a_picture_are_nearly_the_same(raw: Path, tmp_path: Path) -> None:
    for name in ("chexpert-plus", "open-i"):
        folder = "DICOM" if name == "chexpert-plus" else "NLMCXR_dcm"
        prepare(name, raw / name, tmp_path / f"{name}-png", workers=1)
        prepare(name, raw / name, tmp_path / f"{name}-dcm", Options(images=raw / name / folder), workers=1)
        png, dcm = open_cohort(tmp_path / f"{name}-png"), open_cohort(tmp_path / f"{name}-dcm")
        assert png.image_table["image_id"].equals(dcm.image_table["image_id"])
        assert set(dcm.image_table["path"].str.slice(-4)) == {".dcm"}
        # Dividing by the maximum stretches a picture that is not white anywhere.
        close = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(png.images, dcm.images, strict=True)]
        assert min(close) > 0.999


def test_a_whole_run_can_train_on_what_comes_of_chexpert_plus(raw: Path, tmp_path: Path) -> None:
    from medst.batch import Batches
    from medst.recipes.settings import DataSettings
    from medst.tokenizer import learn_tokenizer

    prepare("chexpert-plus", raw / "chexpert-plus", tmp_path / "cohort", workers=1)
    cohort = open_cohort(tmp_path / "cohort")
    assert cohort.pairs is not None
    tokenizer = learn_tokenizer(cohort.pairs["report"], 300)
    found = Batches(cohort, "train", tokenizer, DataSettings(sequences_per_batch=4), pieces=64, seed=0, training=True)
    assert len(found[0].lateral) > 0
    assert found[0].step_mask.any()
