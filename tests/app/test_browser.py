"""The page in a real browser, and the same questions by HTTP."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect
from playwright.sync_api import Page as Tab
from tests.app.page_helpers import Page

from medst.app.private_files import LOCK
from medst.app.studies import Backend

STUDIES = "#medst-timeline .medst-study"


@pytest.fixture
def tab(browser: Browser, page: Page) -> Iterator[Tab]:
    """A fresh tab on the page; nothing may be asked of any other host, and no script may fail."""
    opened = browser.new_page(viewport={"width": 1280, "height": 1400})
    outside: list[str] = []
    failed: list[str] = []
    opened.on(
        "request", lambda r: None if r.url.startswith((page.address, "data:", "blob:")) else outside.append(r.url)
    )
    opened.on("pageerror", lambda error: failed.append(str(error)))
    opened.goto(page.opened)
    expect(opened.locator(STUDIES).first).to_be_visible(timeout=20_000)
    yield opened
    opened.close()
    assert outside == []
    assert failed == []


def ask(tab: Tab, phrase: str) -> None:
    tab.get_by_label("Phrase to look for").fill(phrase)
    tab.keyboard.press("Enter")
    expect(tab.locator("#medst-timeline .medst-legend")).to_contain_text(phrase)


def test_a_patient_from_choice_to_similar_studies(tab: Tab, backend: Backend) -> None:
    expect(tab.get_by_role("note")).to_contain_text("not a medical device")
    first, other = backend.patients[0][1], backend.patients[1][1]
    opened = backend.open_patient(first)
    expect(tab.locator(STUDIES)).to_have_count(len(opened))
    expect(tab.locator(".medst-heat")).to_have_count(0)

    ask(tab, "right pleural effusion")
    views = sum(1 + (study.lateral is not None) for study in opened.studies)
    expect(tab.locator(".medst-heat")).to_have_count(views)
    expected = [f"cosine {g.similarity:.2f}" for g in backend.ground(opened, "right pleural effusion")]
    assert tab.locator("#medst-timeline .medst-score").all_inner_texts() == expected
    assert tab.locator(".medst-curve svg").get_attribute("aria-label", timeout=1000)

    tab.get_by_role("button", name="edema", exact=True).click()
    expect(tab.locator("#medst-timeline .medst-legend")).to_contain_text("edema")

    tab.locator("#medst-compare-go").click()
    expect(tab.locator(".medst-verdict")).to_contain_text("Pleural effusion is")
    found = backend.compare(opened, len(opened) - 2, len(opened) - 1, "pleural effusion")
    expect(tab.locator(".medst-verdict")).to_contain_text(f"is {found.most_likely} from")

    tab.locator("#medst-similar-go").click()
    expect(tab.locator("#medst-hits .medst-study")).to_have_count(6, timeout=30_000)
    nearest = backend.similar(opened, len(opened) - 1)
    assert tab.locator("#medst-hits h3").all_inner_texts() == [hit.patient for hit in nearest]

    box = tab.locator("#medst-patient input")
    box.fill(other)
    box.press("Enter")
    expect(tab.locator(STUDIES)).to_have_count(len(backend.open_patient(other)))
    expect(tab.locator(".medst-verdict")).to_have_count(0)


def test_the_slider_changes_the_heat_in_the_browser_alone(tab: Tab) -> None:
    ask(tab, "pneumonia")
    heat = tab.locator(".medst-heat").first
    assert float(heat.evaluate("e => getComputedStyle(e).opacity")) == pytest.approx(0.6)
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.locator("#medst-opacity input[type=range]").focus()
    for _ in range(4):
        tab.keyboard.press("ArrowRight")
    tab.wait_for_function("getComputedStyle(document.querySelector('.medst-heat')).opacity > 0.79")
    assert float(heat.evaluate("e => getComputedStyle(e).opacity")) == pytest.approx(0.8)
    assert not [url for url in asked if "queue/join" in url]


def test_a_heat_map_lies_on_its_picture(tab: Tab) -> None:
    ask(tab, "edema")
    stacks = tab.locator(".medst-stack").all()[:4]
    assert stacks
    for stack in stacks:
        picture, heat = (stack.locator("img").nth(i).bounding_box() for i in (0, 1))
        assert picture is not None
        assert heat is not None
        assert heat == pytest.approx(picture, abs=1)


def test_own_pictures(tab: Tab, page: Page, dicom: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 300), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "b.png")
    tab.get_by_text("Your own pictures").click()

    def add(file: Path, date: str) -> None:
        with tab.expect_response(lambda response: "/upload" in response.url):
            tab.locator("#medst-frontal input[type=file]").set_input_files(file)
        expect(tab.locator("#medst-frontal")).to_contain_text("KB")
        tab.get_by_label("Date of the study").fill(date)
        tab.locator("#medst-add").click()

    add(dicom, "")
    expect(tab.locator(STUDIES)).to_have_count(1)
    expect(tab.locator(f"{STUDIES} h3")).to_have_text("Study 1, 2024-02-29")
    add(tmp_path / "b.png", "2023-12-01")
    expect(tab.locator(STUDIES)).to_have_count(2)
    assert tab.locator(f"{STUDIES} h3").all_inner_texts() == ["Study 1, 2023-12-01", "Study 2, 2024-02-29"]
    ask(tab, "edema")
    expect(tab.locator(".medst-heat")).to_have_count(2)

    (tmp_path / "DOE_JOHN.dcm").write_bytes(b"garbage" * 300)
    add(tmp_path / "DOE_JOHN.dcm", "2024-03-01")
    toast = tab.locator(".toast-body")
    expect(toast).to_contain_text("the frontal view of study 3: not a DICOM file")
    assert "DOE" not in toast.inner_text()
    expect(tab.locator(STUDIES)).to_have_count(2)  # nothing is lost by it

    assert "Doe" not in tab.content()
    assert "Jane" not in (page.temporary / "said.txt").read_text()
    assert [file.name for file in visitors_files(page)] == ["DOE_JOHN.dcm"]

    tab.locator("#medst-clear").click()
    expect(tab.locator(STUDIES)).to_have_count(0)
    assert visitors_files(page) == []


def visitors_files(page: Page) -> list[Path]:
    """Those with something in them; gradio adds empty ones."""
    files = [file for folder in page.private for file in folder.rglob("*") if file.is_file()]
    return [file for file in files if file.stat().st_size and file.name != LOCK]


def test_a_refused_study_is_corrected_and_sent_again(tab: Tab, page: Page, dicom: Path, tmp_path: Path) -> None:
    bare = tmp_path / "IM0001"  # as on a hospital's disc
    shutil.copy(dicom, bare)
    tab.get_by_text("Your own pictures").click()
    with tab.expect_response(lambda response: "/upload" in response.url):
        tab.locator("#medst-frontal input[type=file]").set_input_files(bare)
    expect(tab.locator("#medst-frontal")).to_contain_text("KB")
    tab.get_by_label("Report, if there is one").fill("No change.")
    tab.get_by_label("Date of the study").fill("01.03.2150")
    tab.locator("#medst-add").click()
    expect(tab.locator(".toast-body")).to_contain_text("'01.03.2150' is not a date")
    assert [file.name for file in visitors_files(page)] == ["IM0001"]
    tab.get_by_label("Date of the study").fill("2150-03-01")
    tab.locator("#medst-add").click()
    expect(tab.locator(STUDIES)).to_have_count(1)
    expect(tab.locator(f"{STUDIES} h3")).to_have_text("Study 1, 2150-03-01")
    expect(tab.locator(f"{STUDIES} .medst-report")).to_have_text("No change.")
    assert visitors_files(page) == []


HOSTILE = (
    "<img src=x onerror=hacked()><script>hacked()</script><b id=hostile>bold</b> [link](javascript:hacked()) "
    "![i](x) ${hacked()} {{ hacked() }} {{{hacked}}} {% raw %} \"'`</p></ol>"
)


def test_html_in_texts_is_escaped(tab: Tab, page: Page, dicom: Path, tmp_path: Path) -> None:
    """In a DICOM's elements, a file's name, a report, a phrase, a patient's id, a finding, a date and every message."""
    import pydicom

    dataset = pydicom.dcmread(dicom)
    dataset.PatientName = dataset.PatientID = dataset.StudyDescription = dataset.ImageComments = HOSTILE[:27]
    file = tmp_path / "<img src=x onerror=hacked()><b id=hostile>.dcm"
    dataset.save_as(file)
    tab.evaluate("() => { window.hacked = () => { window.wasHacked = true } }")
    tab.get_by_text("Your own pictures").click()

    def refused(said: str) -> None:
        toast = tab.locator(".toast-body").first
        expect(toast).to_contain_text(said)
        expect(toast).to_contain_text("<img src=x")
        toast.get_by_label("Close").click()
        expect(tab.locator(".toast-body")).to_have_count(0)

    with tab.expect_response(lambda response: "/upload" in response.url):
        tab.locator("#medst-frontal input[type=file]").set_input_files(file)
    expect(tab.locator("#medst-frontal")).to_contain_text("KB")
    tab.get_by_label("Report, if there is one").fill(HOSTILE)
    tab.get_by_label("Date of the study").fill(HOSTILE[:20])
    tab.locator("#medst-add").click()
    refused("is not a date")
    tab.get_by_label("Date of the study").fill("")
    tab.locator("#medst-add").click()
    expect(tab.locator(STUDIES)).to_have_count(1)
    expect(tab.locator(f"{STUDIES} .medst-report")).to_have_text(HOSTILE)
    ask(tab, HOSTILE)
    box = tab.locator("#medst-patient input")
    box.fill(HOSTILE[:60])
    box.press("Enter")
    refused("there is no patient")
    with tab.expect_response(lambda response: "/queue/data" in response.url):
        finding = tab.get_by_label("Finding", exact=True)
        finding.fill(HOSTILE)
        finding.press("Enter")
        tab.locator("#medst-compare-go").click()
    expect(tab.locator(".medst-verdict")).to_contain_text("<img src=x")
    assert tab.locator("#hostile").count() == 0
    assert tab.locator("img[src=x]").count() == 0
    assert tab.locator("[href^=javascript]").count() == 0
    assert tab.evaluate("window.wasHacked") is None


def test_a_script_written_into_the_page_does_not_run(tab: Tab) -> None:
    tab.evaluate("() => { window.hacked = () => { window.wasHacked = true } }")
    tab.evaluate(
        "document.querySelector('#medst-top').insertAdjacentHTML('beforeend', '<img src=x onerror=hacked()>'); "
        "const s = document.createElement('script'); s.text = 'hacked()'; document.body.append(s)"
    )
    tab.wait_for_function("[...document.images].every(i => i.complete)")
    assert tab.evaluate("window.wasHacked") is None
    tab.evaluate("hacked()")
    assert tab.evaluate("window.wasHacked") is True


def test_mistakes_give_a_message_and_the_page_still_works(tab: Tab) -> None:
    box = tab.locator("#medst-patient input")
    box.fill("<img src=x onerror=alert(1)>")
    box.press("Enter")
    expect(tab.locator(".toast-body")).to_contain_text("there is no patient")
    ask(tab, "edema")


def test_with_the_keyboard_alone(tab: Tab) -> None:
    tab.get_by_label("Phrase to look for").focus()
    tab.keyboard.type("consolidation")
    tab.keyboard.press("Enter")
    expect(tab.locator(".medst-legend")).to_contain_text("consolidation")
    reached = set()
    for _ in range(40):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label')"))
    assert {"medst-compare-go", "medst-similar-go", "Studies in time order"} <= reached


def test_nothing_overflows_on_a_phone(browser: Browser, page: Page) -> None:
    phone = browser.new_page(viewport={"width": 375, "height": 800}, is_mobile=True)
    phone.goto(page.opened)
    expect(phone.locator(STUDIES).first).to_be_visible(timeout=20_000)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 375
    phone.close()


def call(page: Page, name: str, *arguments: Any) -> Any:
    """As the page's own API description says: post, then read the event."""
    body = json.dumps({"data": list(arguments)}).encode()
    status, _, event = page.ask(f"gradio_api/call/{name}", body, Content_Type="application/json")
    assert status == 200, event
    lines = page.ask(f"gradio_api/call/{name}/{json.loads(event)['event_id']}")[2].splitlines()
    assert lines[0] == "event: complete", lines
    return json.loads(lines[1].removeprefix("data: "))[0]


def test_the_http_api(page: Page, backend: Backend) -> None:
    assert call(page, "patients") == [{"patient": patient, "label": label} for label, patient in backend.patients]
    patient = backend.patients[0][1]
    opened = backend.open_patient(patient)
    found = call(page, "similarity", patient, "edema")
    for said, grounding, study in zip(found, backend.ground(opened, "edema"), opened.studies, strict=True):
        assert said["study"] == study.name
        assert said["similarity"] == pytest.approx(grounding.similarity, abs=1e-5)
        np.testing.assert_allclose(said["frontal"], grounding.frontal.grid, atol=1e-5)
        assert (said["lateral"] is None) == (study.lateral is None)
    compared = call(page, "compare", patient, 1, 2, "edema")
    assert compared["change"] == pytest.approx(backend.compare(opened, 0, 1, "edema").change, abs=1e-5)
    assert [h["study"] for h in call(page, "similar", patient, 1, 3)] == [
        h.study.name for h in backend.similar(opened, 0, 3)
    ]


def test_the_api_refuses_what_is_not_there(page: Page) -> None:
    with pytest.raises(AssertionError, match="event: error"):
        call(page, "similarity", "../../../etc/passwd", "edema")
    with pytest.raises(AssertionError, match="event: error"):
        call(page, "compare", "p1", 1, 2, "edema")


@pytest.mark.parametrize("path", ["/etc/passwd", "pyproject.toml", "{cohort}/pairs.parquet", "{private}/../said.txt"])
def test_files_of_this_computer_are_not_served(page: Page, phantom_cohort: Path, path: str) -> None:
    asked = path.format(cohort=phantom_cohort, private=page.private[0])
    assert page.ask(f"gradio_api/file={asked}")[0] in (403, 404)


def test_a_file_that_was_not_sent_is_not_read(page: Page, phantom_tree: Path) -> None:
    """The handler behind "Add study", given a path of this computer in place of an upload."""
    picture = next((phantom_tree / "mimic-cxr-jpg" / "files").rglob("*.jpg"))
    handlers = json.loads(page.ask("config")[2])["dependencies"]
    [number] = [h["id"] for h in handlers if h["api_name"] == "add_study"]
    file = {"path": str(picture), "meta": {"_type": "gradio.FileData"}}
    asked = {"data": [None, "", file, None, "", ""], "fn_index": number, "session_hash": "stranger"}
    status, _, _ = page.ask("gradio_api/queue/join", json.dumps(asked).encode(), Content_Type="application/json")
    assert status == 200
    _, _, answer = page.ask("gradio_api/queue/data?session_hash=stranger")
    said = [json.loads(line.removeprefix("data: ")) for line in answer.splitlines() if line]
    [done] = [each for each in said if each["msg"] == "process_completed"]
    assert done["success"] is False
    assert "data:image" not in json.dumps(said)
    assert picture.is_file()
