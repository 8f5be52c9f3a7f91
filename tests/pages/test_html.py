"""Pictures and tables inside a page, and the writer of pages."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medst.errors import MedstError
from medst.files import claim
from medst.pages.html import csv_uri, picture_uri, render_macro, write_page


def content(address: str) -> bytes:
    return base64.b64decode(address.partition(",")[2])


def test_grey_pictures_are_jpeg_and_those_with_opacity_png() -> None:
    grey = np.tile(np.linspace(30, 220, 176, dtype=np.uint8), (256, 1))
    jpeg = Image.open(io.BytesIO(content(picture_uri(grey))))
    assert (jpeg.format, jpeg.size) == ("JPEG", (176, 256))
    assert np.abs(np.asarray(jpeg, dtype=int) - grey).max() < 12
    colours = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    png = Image.open(io.BytesIO(content(picture_uri(colours))))
    assert png.format == "PNG"
    assert np.array_equal(np.asarray(png), colours)


def test_csv_is_quoted() -> None:
    assert content(csv_uri(("a", "b"), [(1, "x, y"), (None, "z")])).decode() == 'a,b\r\n1,"x, y"\r\n,z\r\n'


def test_macros_escape_their_values() -> None:
    assert "&lt;b&gt;" in render_macro("app/fragments.html.j2", "timeline", [], "<b>", "", None, "")


def test_a_page_that_is_being_written_is_refused_with_the_files_beside_it(tmp_path: Path) -> None:
    page, beside = tmp_path / "page.html", tmp_path / "numbers.json"
    with claim(page), pytest.raises(MedstError, match="another process"):
        write_page(page, "<p>", {beside: "{}"})
    assert not page.exists()
    assert not beside.exists()
    assert write_page(page, "<p>", {beside: "{}"}) == page
    assert (page.read_text(), beside.read_text()) == ("<p>", "{}")


def test_only_a_page_is_replaced(tmp_path: Path) -> None:
    page, other, beside = tmp_path / "page.html", tmp_path / "results.json", tmp_path / "numbers.json"
    other.write_text("{}")
    with pytest.raises(MedstError, match=r"--out .*results\.json: this file is not an HTML page"):
        write_page(other, "<p>", {beside: "{}"})
    assert other.read_text() == "{}"
    assert not beside.exists()
    for text in ("<!doctype html><p>", "<!DOCTYPE HTML>", ""):
        page.write_text(text)
        write_page(page, "<p>")
        assert page.read_text() == "<p>"
