"""HTML for every page: one template environment, one writer, and the data URIs that make a page self-contained."""

import base64
import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup
from PIL import Image

from medst import __version__
from medst.errors import MedstError
from medst.files import claim, write_text
from medst.pages.figure_style import FINDING_COLOURS, css_colour
from medst.pages.wording import percent, readable

JPEG_QUALITY = 86


@cache
def _environment() -> jinja2.Environment:
    """All templates of the package, named by their path in it; everything that is inserted into them is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("medst", ""),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["version"] = __version__
    filters: dict[str, Callable[..., Any]] = {
        "css_colour": css_colour,
        "finding_colour": lambda finding: FINDING_COLOURS.get(finding, ""),
        "count": "{:,}".format,
        "percent": percent,
        "readable": readable,
        "sections": _sections,
    }
    environment.filters |= filters
    return environment


def render(template: str, content: Mapping[str, Any]) -> str:
    """A filled-in template, for instance "pages/report.html.j2"."""
    return _environment().get_template(template).render(content)


def render_macro(template: str, macro: str, *values: object) -> str:
    """The output of one macro of a template."""
    return str(getattr(_environment().get_template(template).module, macro)(*values))


def _sections(main: Markup) -> list[tuple[str, str]]:
    """Id and title of every section, for the contents list."""
    found = re.findall(r'<section id="([^"]+)">\s*<h2>(.*?)</h2>', main, re.DOTALL)
    return [(name, Markup(title).striptags()) for name, title in found]


def write_page(page: Path, html: str, beside: Mapping[Path, str] | None = None) -> Path:
    """Write a page and, before it, the text files that belong beside it; each is complete or unchanged.

    Raises:
        MedstError: another process is writing the page, or a file that is not a page has its name.
    """
    with claim(page):
        if not _is_page(page):
            raise MedstError(f"--out {page}: this file is not an HTML page and stays as it is; give another name.")
        for path, text in (beside or {}).items():
            write_text(path, text)
        write_text(page, html)
    return page


def _is_page(path: Path) -> bool:
    """Whether a file may be replaced by a page: it is one, or is empty, or there is none."""
    if not path.is_file():
        return True
    with path.open("rb") as file:
        start = file.read(200).lstrip().lower()
    return not start or start.startswith((b"<!doctype html", b"<html"))


def picture_uri(pixels: UInt8[np.ndarray, "height width *channels"]) -> str:
    """A data URI of a picture: JPEG where it is grey, PNG where it has colours and opacity (RGBA)."""
    buffer = io.BytesIO()
    if pixels.ndim == 2:
        Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
        return _data_uri("image/jpeg", buffer.getvalue())
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return _data_uri("image/png", buffer.getvalue())


def csv_uri(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A data URI of a CSV file."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    return _data_uri("text/csv;charset=utf-8", text.getvalue().encode())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
