from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import polars as pl
import pytest
from tests.cohort.conftest import picture
from tests.cohort.dicoms import dicom

from medst.cohort.open_i import key_of
from medst.cohort.options import Options
from medst.cohort.pairs import draw_splits
from medst.cohort.prepare import prepare
from medst.cohort.store import Cohort, open_cohort
from medst.errors import MedstError

Rejections = Callable[[Path], list[tuple[str, str, str]]]
PNG, DCM = "NLMCXR_png", "NLMCXR_dcm"


class Collection:
    """XML reports and images."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.views = folder, {}  # type: tuple[Path, dict[str, str]]
        self.reports = folder / "NLMCXR_reports" / "ecgen-radiology"
        self.reports.mkdir(parents=True)
        (folder / PNG).mkdir()

    def add(self, number: int, views: str = "FL", **sections: str) -> list[str]:
        """Add a report with images of these views, F or L, in this order, as PNG and DICOM."""
        ids = [f"CXR{number}_IM-0{number:03d}-{n + 1}001" for n in range(len(views))]
        texts = {"FINDINGS": f"Heart of size {number} now.", "IMPRESSION": "No change."} | sections
        abstract = "".join(f'<AbstractText Label="{name}">{text}</AbstractText>' for name, text in texts.items())
        images = "".join(f'<parentImage id="{name}"><caption>PA and lateral</caption></parentImage>' for name in ids)
        (self.reports / f"{number}.xml").write_text(
            f'<?xml version="1.0" encoding="utf-8"?><eCitation><uId id="CXR{number}"/><MedlineCitation><Article><Abstract>'
            f"{abstract}</Abstract></Article></MedlineCitation>{images}</eCitation>"
        )
        for name, view in zip(ids, views, strict=True):
            image = picture(sum(name.encode()))
            cv2.imwrite(str(self.folder / PNG / f"{name}.png"), image)
            path = self.folder / DCM / str(number) / f"{name.removeprefix('CXR')}.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(dicom(image.astype("uint16") * 16, ViewPosition="PA" if view == "F" else "LL"))
            self.views[f"{name.removeprefix('CXR')}.dcm.png"] = "Frontal" if view == "F" else "Lateral"
        return ids

    def write_views(self, folder: Path | None = None) -> None:
        lines = [f"{i},{name},{view}" for i, (name, view) in enumerate(self.views.items())]
        ((folder or self.folder) / "indiana_projections.csv").write_text(
            "\n".join(["uid,filename,projection", *lines]) + "\n"
        )

    def cohort(self, name: str = "cohort", max_rejected: float = 1.0, **options: Any) -> Cohort:
        path = self.folder.parent / name
        prepare("open-i", self.folder, path, Options(**options), workers=1, max_rejected=max_rejected)
        return open_cohort(path)


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection(tmp_path / "open-i")


def found(cohort: Cohort) -> list[tuple[str, str | None]]:
    ids = cohort.image_table["image_id"].to_list()
    assert cohort.pairs is not None
    rows = cohort.pairs.select("frontal", "lateral").iter_rows()
    return [(ids[frontal], None if lateral is None else ids[lateral]) for frontal, lateral in rows]


def test_views_are_those_of_the_table_or_of_the_headers_or_the_order(collection: Collection) -> None:
    one, two = collection.add(1, "LF"), collection.add(2, "F")
    pairs = [(one[1], one[0]), (two[0], None)]
    with pytest.raises(MedstError, match=r"nothing says which images are frontal.*--views order"):
        collection.cohort()
    assert found(collection.cohort("order", views="order")) == [(one[0], one[1]), (two[0], None)]
    headers = collection.cohort("headers", images=collection.folder / DCM)
    assert found(headers) == pairs
    assert headers.image_table["path"].to_list()[0].endswith(".dcm")
    collection.write_views()
    given = collection.cohort("given", max_rejected=0)
    assert found(given) == pairs
    assert given.image_table["path"].to_list()[0].endswith(".png")
    assert given.meta["time"] == "order"


def test_by_order_third_images_are_named_without_an_error(collection: Collection) -> None:
    """Many reports of the real collection have three or more images."""
    ids = [collection.add(number, "FLLF") for number in range(1, 4)]
    cohort = collection.cohort(max_rejected=0, views="order")
    assert found(cohort) == [(one[0], one[1]) for one in ids]
    lines = pl.read_csv(cohort.path / "rejected.csv", infer_schema=False)
    assert lines["id"].to_list() == [name for one in ids for name in one[2:]]
    assert set(lines["kind"]) == {"unused"}
    assert lines["rows"].to_list() == ["3", "4", "7", "8", "11", "12"]
    assert cohort.meta["rows"] == {"read": 12, "kept": 6, "left_out": 6}


def test_headers_without_a_view_are_named_without_an_error(collection: Collection) -> None:
    """2,586 of the 7,469 headers of the real collection have none."""
    (whole,) = collection.add(1, "F")
    (bare,) = collection.add(2, "F")
    image = picture(5).astype("uint16") * 16
    (collection.folder / DCM / "2" / f"{bare.removeprefix('CXR')}.dcm").write_bytes(dicom(image))
    cohort = collection.cohort(images=collection.folder / DCM, max_rejected=0)
    assert found(cohort) == [(whole, None)]
    lines = pl.read_csv(cohort.path / "rejected.csv", infer_schema=False)
    assert lines.select("kind", "id", "reason", "rows").rows() == [
        ("unused", bare, "nothing says whether it is frontal or lateral", "2")
    ]


def test_reports_splits_and_one_study_per_patient(collection: Collection) -> None:
    for number in range(1, 8):
        collection.add(number)
    collection.write_views(collection.folder.parent)
    pairs = collection.cohort(max_rejected=0).pairs
    assert pairs is not None
    assert pairs["study_id"].to_list() == pairs["patient_id"].to_list() == [f"CXR{n}" for n in range(1, 8)]
    assert pairs["report"][2] == "no change heart of size 3 now"
    assert pairs["split"].to_list() == draw_splits(pairs["patient_id"]).to_list()
    assert pairs["lateral"].null_count() == 0


def test_unusable_reports_and_images_are_rejected_by_name(collection: Collection, rejections: Rejections) -> None:
    good = collection.add(1, "F")
    gone = collection.add(2, "F")
    (collection.folder / PNG / f"{gone[0]}.png").unlink()
    collection.add(3, "F", FINDINGS="", IMPRESSION="")
    collection.add(4, "")
    collection.add(5, "F")
    (collection.reports / "5.xml").write_text("<eCitation><uId")
    (collection.reports / "6.xml").write_text('<!DOCTYPE x [<!ENTITY a "aaaa">]><eCitation>&a;</eCitation>')
    (collection.reports / "9.xml").write_bytes(b" " * 1_000_001)
    (collection.reports / "10.xml").write_text((collection.reports / "6.xml").read_text(), encoding="utf-16")
    (side,) = collection.add(7, "F")
    del collection.views[f"{side.removeprefix('CXR')}.dcm.png"]
    (collection.reports / "8.xml").write_text((collection.reports / "1.xml").read_text())
    (collection.folder / DCM).rename(collection.folder.parent / "elsewhere")
    collection.write_views()
    cohort = collection.cohort()
    assert found(cohort) == [(good[0], None)]
    rows = rejections(cohort.path)
    assert sorted((kind, name) for kind, name, _ in rows) == [
        ("image", gone[0]), *(("report", name) for name in ("10", "5", "6", "9")), ("row", "CXR1"),
        ("text", "CXR3"), ("text", "CXR4"),
    ]  # fmt: skip
    reasons = {name: reason for _, name, reason in rows}
    left = dict(pl.read_csv(cohort.path / "rejected.csv").select("id", "reason").rows())
    assert reasons[gone[0]] == "no such file"
    assert left[side] == "nothing says whether it is frontal or lateral"
    assert reasons["CXR3"] == "the report has neither findings nor an impression"
    assert reasons["CXR4"] == "the report names no image"
    assert reasons["5"].startswith("damaged XML (")
    assert reasons["6"] == reasons["10"] == "not an XML report of Open-i"
    assert reasons["9"] == "larger than the 1 MB that are read"
    assert reasons["CXR1"] == "more than one report of this id; its first file counts"


def test_names_of_an_image_have_one_key() -> None:
    names = ["CXR1_1_IM-0001-3001", "1_IM-0001-3001.dcm.png", "1_IM-0001-3001.dcm", "CXR1_IM-0001-3001.png"]
    assert {key_of(name) for name in names} == {"1_IM-0001-3001"}
    assert key_of("CXR11_IM-0001-3001") != key_of("CXR1_IM-0001-3001")


def test_missing_parts_are_named_with_where_they_come_from(tmp_path: Path) -> None:
    with pytest.raises(MedstError, match="nowhere: no such folder"):
        prepare("open-i", tmp_path / "nowhere", tmp_path / "x")
    with pytest.raises(MedstError, match=r"no XML report below it; unpack NLMCXR_reports.tgz"):
        prepare("open-i", tmp_path, tmp_path / "x")
    collection = Collection(tmp_path / "open-i")
    collection.add(1, "")
    with pytest.raises(MedstError, match=r"no picture of Open-i below it; unpack NLMCXR_png.tgz"):
        prepare("open-i", collection.folder, tmp_path / "x")


def test_reports_that_lose_letters_are_counted(collection: Collection) -> None:
    collection.add(1, FINDINGS="El corazón es normal.")
    collection.add(2)
    collection.write_views()
    assert collection.cohort().meta["counts"]["reports_losing_letters"] == 1
    assert "reports_losing_letters" not in collection.cohort("whole", text="whole").meta["counts"]
