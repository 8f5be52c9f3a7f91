"""The parts of the page that are not controls: what is drawn, and that data never becomes HTML."""

import base64
import io
import re
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
from matplotlib.colors import Normalize
from PIL import Image

from medst.app.html import (
    comparison_html,
    heat_colours_css,
    heat_scale,
    heat_uri,
    similar_html,
    similarity_curve,
    timeline_html,
)
from medst.app.studies import Backend
from medst.use import Grounding, HeatMap, Progression, Study
from medst.use.geometry import Geometry

EVIL = "<script>alert(1)</script> ${alert(2)} {{ 7 * 7 }}"


def image_of(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_heat_is_more_opaque_for_larger_values_and_clear_outside_the_crop() -> None:
    grid = np.array([[0.1, 0.1], [0.1, 0.5]], dtype=np.float32)
    heat = HeatMap(grid, Geometry(256, 256), 128)
    image = np.asarray(image_of(heat_uri(heat, Normalize(0.1, 0.5, clip=True))))
    assert image.shape == (256, 256, 4)
    alpha = image[..., 3]
    assert not alpha[:64].any()
    assert not alpha[:, 192:].any()
    assert alpha[180, 180] == 255
    assert alpha[70, 70] == 0
    assert 100 < alpha[128, 180] < 155
    half = np.asarray(image_of(heat_uri(heat, Normalize(-0.3, 0.5, clip=True))))
    assert abs(int(half[70, 70, 3]) - 128) <= 1


def test_one_scale_for_all_views() -> None:
    def of(low: float, high: float) -> HeatMap:
        return HeatMap(np.array([[low, high]], dtype=np.float32), Geometry(20, 20), 224)

    scale = heat_scale([Grounding("a", of(0.1, 0.2), None, 0), Grounding("a", of(0.0, 0.1), of(0.3, -0.4), 0)])
    np.testing.assert_allclose((scale.vmin, scale.vmax), (-0.4, 0.3), rtol=1e-6)
    assert heat_colours_css().count("#") == 7


def test_the_curve_has_its_values_as_text() -> None:
    studies = [Study("a", time=datetime(2150, 1, day)) for day in (1, 2, 3)]
    svg = similarity_curve(studies, [0.1, -0.25, 0.4], 'a "phrase"')
    assert "study 1: 0.10, study 2: -0.25, study 3: 0.40." in svg
    assert "2150-01-02" in svg
    assert "2150" not in similarity_curve([Study("a"), Study("b")], [0.1, 0.2], "edema")


def test_every_study_is_shown_and_texts_are_escaped(backend: Backend) -> None:
    opened = backend.open_patient(backend.patients[0][1])
    opened = replace(
        opened, studies=tuple(replace(study, report=f"{EVIL} {n}") for n, study in enumerate(opened.studies))
    )
    plain = timeline_html(opened)
    assert plain.count('class="medst-study"') == len(opened)
    assert 'class="medst-heat"' not in plain
    found = timeline_html(opened, backend.ground(opened, EVIL))
    views = sum(1 + (study.lateral is not None) for study in opened.studies)
    assert found.count('class="medst-heat"') == found.count('alt="Frontal"') + found.count('alt="Lateral"') == views
    for html in (plain, found):
        assert "<script" not in html
        assert "&lt;script&gt;alert(1)" in html
    assert found.count("cosine ") >= len(opened)
    assert "earlier studies" not in plain
    assert "3 earlier studies of this patient are not shown." in timeline_html(replace(opened, left_out=3))
    assert [f"{g.similarity:.2f}" for g in backend.ground(opened, EVIL)] == re.findall(r"cosine (-?\d\.\d\d)<", found)


def test_the_time_between_studies_is_shown_if_it_is_known(backend: Backend) -> None:
    opened = backend.open_patient(backend.patients[0][1])
    start = datetime(2150, 1, 1)
    times = [start, start, start + timedelta(days=90)]
    html = timeline_html(replace(opened, studies=tuple(replace(opened.studies[0], time=time) for time in times)))
    assert re.findall(r">([\w ]+) later<", html) == ["3 months"]
    assert " later<" not in timeline_html(replace(opened, studies=(replace(opened.studies[0], time=None),) * 2))


def test_a_comparison_and_similar_studies(backend: Backend) -> None:
    opened = backend.open_patient(backend.patients[0][1])
    html = comparison_html(opened, 0, 1, Progression(EVIL, 0.2, 0.3, 0.5, -0.1, 0.25, 0.05, False))
    assert "<script" not in html
    assert "is <b>worsening</b> from Study 1, " in html
    assert re.findall(r"<td>(\d+) %</td>", html) == ["20", "30", "50"]
    assert "-0.100, then +0.250" in html
    hits = [replace(hit, patient=EVIL, study=replace(hit.study, report=EVIL)) for hit in backend.similar(opened, 0, 2)]
    html = similar_html(hits)
    assert "<script" not in html
    assert html.count('class="medst-study"') == 2
    assert "No other studies" in similar_html([])
