"""The parts of the page that are not controls: what is drawn, and that nothing from data becomes HTML."""

import base64
import io
import re
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
from PIL import Image

from medst.app.drawing import Scale, heat_uri, legend_css, picture_uri, similarity_curve
from medst.app.html import comparison_html, similar_html, timeline_html
from medst.app.studies import Desk
from medst.use import Grounding, HeatMap, Progression, Study
from medst.use.geometry import Geometry

EVIL = "<script>alert(1)</script> ${alert(2)} {{ 7 * 7 }}"
GREY = np.random.default_rng(0).integers(0, 256, (60, 40), dtype=np.uint8)


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_a_picture_comes_out_of_its_uri() -> None:
    image = opened(picture_uri(np.full((60, 40), 90, dtype=np.uint8)))
    assert image.size == (40, 60)
    assert np.abs(np.asarray(image).astype(int) - 90).max() <= 1


def test_heat_covers_more_the_larger_the_value_and_nothing_outside_of_the_crop() -> None:
    grid = np.array([[0.1, 0.1], [0.1, 0.5]], dtype=np.float32)
    heat = HeatMap(grid, Geometry(256, 256), 128)
    image = np.asarray(opened(heat_uri(heat, Scale(0.1, 0.5))))
    assert image.shape == (256, 256, 4)
    alpha = image[..., 3]
    assert not alpha[:64].any()
    assert not alpha[:, 192:].any()
    assert alpha[180, 180] == 255
    assert alpha[70, 70] == 0
    assert 100 < alpha[128, 180] < 155
    half = np.asarray(opened(heat_uri(heat, Scale(-0.3, 0.5))))
    assert abs(int(half[70, 70, 3]) - 128) <= 1


def test_one_scale_for_all_views() -> None:
    def of(low: float, high: float) -> HeatMap:
        return HeatMap(np.array([[low, high]], dtype=np.float32), Geometry(20, 20), 224)

    scale = Scale.of([Grounding("a", of(0.1, 0.2), None, 0), Grounding("a", of(0.0, 0.1), of(0.3, -0.4), 0)])
    np.testing.assert_allclose((scale.low, scale.high), (-0.4, 0.3), rtol=1e-6)
    assert legend_css().count("#") == 7


def test_the_curve_says_its_values() -> None:
    studies = [Study("a", time=datetime(2150, 1, day)) for day in (1, 2, 3)]
    svg = similarity_curve(studies, [0.1, -0.25, 0.4], 'a "phrase"')
    assert "study 1: 0.10, study 2: -0.25, study 3: 0.40." in svg
    assert "2150-01-02" in svg
    assert "2150" not in similarity_curve([Study("a"), Study("b")], [0.1, 0.2], "edema")


def test_a_time_line_has_every_study_and_escapes_what_is_written(desk: Desk) -> None:
    visit = desk.visit(desk.patients[0][1])
    visit = replace(visit, studies=tuple(replace(study, report=f"{EVIL} {n}") for n, study in enumerate(visit.studies)))
    plain = timeline_html(visit)
    assert plain.count('class="medst-study"') == len(visit)
    assert 'class="medst-heat"' not in plain
    found = timeline_html(visit, desk.ground(visit, EVIL))
    views = sum(1 + (study.lateral is not None) for study in visit.studies)
    assert found.count('class="medst-heat"') == found.count('alt="Frontal"') + found.count('alt="Lateral"') == views
    for html in (plain, found):
        assert "<script" not in html
        assert "&lt;script&gt;alert(1)" in html
    assert found.count("cosine ") >= len(visit)
    assert "earlier studies" not in plain
    assert "3 earlier studies of this patient are not shown." in timeline_html(replace(visit, left_out=3))
    assert [f"{g.similarity:.2f}" for g in desk.ground(visit, EVIL)] == re.findall(r"cosine (-?\d\.\d\d)<", found)


def test_the_time_between_studies_is_said_where_there_is_some(desk: Desk) -> None:
    visit = desk.visit(desk.patients[0][1])
    start = datetime(2150, 1, 1)
    times = [start, start, start + timedelta(days=90)]
    html = timeline_html(replace(visit, studies=tuple(replace(visit.studies[0], time=time) for time in times)))
    assert re.findall(r">([\w ]+) later<", html) == ["3 months"]
    assert " later<" not in timeline_html(replace(visit, studies=(replace(visit.studies[0], time=None),) * 2))


def test_a_comparison_and_similar_studies(desk: Desk) -> None:
    visit = desk.visit(desk.patients[0][1])
    html = comparison_html(visit, 0, 1, Progression(EVIL, 0.2, 0.3, 0.5, -0.1, 0.25))
    assert "<script" not in html
    assert "is <b>worsening</b> from Study 1, " in html
    assert re.findall(r"<td>(\d+) %</td>", html) == ["20", "30", "50"]
    assert "-0.100, then +0.250" in html
    hits = [replace(hit, report=EVIL, patient=EVIL) for hit in desk.similar(visit, 0, 2)]
    html = similar_html(hits)
    assert "<script" not in html
    assert html.count('class="medst-study"') == 2
    assert "No other studies" in similar_html([])
