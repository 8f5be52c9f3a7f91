"""Everything that can be wrong with a picture, in one table: left out by name, counted, said at the end, and no more."""

import zlib
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
from PIL import Image
from tests.cohort.conftest import jpeg, picture
from tests.cohort.test_dicom import BAD
from tests.cohort.test_images import png_header

from medst.cli import main
from medst.cohort.store import open_cohort

WHOLE = jpeg(picture(1))


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


PICTURES = {
    "truncated.jpg": (WHOLE[: len(WHOLE) // 2], "truncated or damaged"),
    "empty.jpg": (b"", "the file is empty"),
    "deep.png": (bytes(cv2.imencode(".png", picture(2).astype(np.uint16) * 200)[1]), "more than 8 bits a pixel"),
    "cmyk.jpg": (encoded(Image.fromarray(picture(3)).convert("CMYK"), "JPEG"), "CMYK colours, not grey or RGB"),
    "pixel.png": (bytes(cv2.imencode(".png", np.ones((1, 1), np.uint8))[1]), "1 x 1 pixels: too small"),
    "black.jpg": (jpeg(np.zeros((40, 40), np.uint8)), "all pixels are alike (0)"),
    "bomb.png": (png_header(20_000, 10_000), "too large"),
    "page.jpg": (b"<html>log in</html>", "not a picture"),
    "zeros.png": (b"\x89PNG\r\n\x1a\n" + zlib.compress(b""), "not a picture"),
}


@pytest.mark.parametrize("decode", ["exact", "fast"])
def test_each_is_left_out_by_name_and_the_rest_is_made(
    tmp_path: Path, decode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = PICTURES | {f"{name.replace(' ', '-')}.dcm": entry for name, entry in BAD.items()}
    good = [f"good{number}.jpg" for number in range(4)]
    for number, name in enumerate(good):
        (tmp_path / name).write_bytes(jpeg(picture(number)))
    for name, (content, _) in bad.items():
        (tmp_path / name).write_bytes(content)
    names = [*good, *bad, "missing.jpg"]
    table = pl.DataFrame(
        {
            "patient": [f"p{i}" for i in range(len(names))],
            "study": [f"s{i}" for i in range(len(names))],
            "time": "2100-01-01",
            "frontal": names,
            "report": "No change is seen.",
        }
    )
    (tmp_path / "table.csv").write_bytes(b"\xef\xbb\xbf" + table.write_csv().encode())
    arguments = ["prepare", "table", str(tmp_path / "table.csv"), str(tmp_path / "cohort"), "--decode", decode]
    with pytest.raises(SystemExit, match="1"):
        main(arguments)
    assert f"{len(bad) + 1} of {len(names)} images were left out (see rejected.csv)" in capsys.readouterr().err
    main([*arguments, "--max-rejected", "1"])
    said = capsys.readouterr().out
    assert f"{len(bad) + 1} rejected images" in said
    assert "rejected.csv" in said
    cohort = open_cohort(tmp_path / "cohort")
    assert cohort.pairs is not None
    assert cohort.pairs["patient_id"].to_list() == ["p0", "p1", "p2", "p3"]
    assert cohort.meta["counts"]["rejected_images"] == len(bad) + 1
    rejected = {row[1]: row[3] for row in pl.read_csv(tmp_path / "cohort" / "rejected.csv").iter_rows()}
    assert set(rejected) == {*bad, "missing.jpg"}
    for name, (_, reason) in bad.items():
        assert reason in rejected[name], name
    assert "SECRET" not in (tmp_path / "cohort" / "rejected.csv").read_text()
