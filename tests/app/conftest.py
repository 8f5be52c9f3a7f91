"""A backend over a phantom cohort, its page, and a browser to look at it with."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright
from tests.app.page_helpers import Page, opened_page

from medst.app.studies import Backend
from medst.cohort.store import open_cohort
from medst.use import load
from medst_phantom.others import write_tree

CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def backend(small_model: Path, phantom_cohort: Path) -> Backend:
    return Backend(load(small_model), open_cohort(phantom_cohort))


@pytest.fixture(scope="session")
def dicom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DICOM file with a patient's name and a date in it."""
    import pydicom

    tree = tmp_path_factory.mktemp("rsna") / "rsna"
    write_tree("rsna", tree, patients=4, seed=0, workers=1)
    file = sorted(tree.rglob("*.dcm"))[0]
    named = tree.parent / "DOE_JANE.dcm"
    dataset = pydicom.dcmread(file)
    dataset.PatientName, dataset.StudyDate = "Doe^Jane", "20240229"
    dataset.save_as(named)
    return named


@pytest.fixture(scope="session")
def page(small_model: Path, phantom_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Over the phantom cohort; takes files up to 2 MB."""
    folder = tmp_path_factory.mktemp("page")
    with opened_page(
        folder, str(small_model), str(phantom_cohort), "--upload", "2", "--allow-host", "ward.example"
    ) as page:
        yield page


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        assert not os.environ.get("MEDST_NEEDS_BROWSER"), "continuous integration has no Chromium"
        pytest.skip("no Chromium on this machine; Debian's is `apt install chromium`")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=CHROMIUM)
        yield opened
        opened.close()
