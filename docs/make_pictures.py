"""The pictures in these pages, from a finished demo: python docs/make_pictures.py [medst-demo]; needs Chromium."""

import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
from playwright.sync_api import Browser, sync_playwright

HERE = Path(__file__).parent
PICTURES = HERE / "pictures"
PHRASE = "right pleural effusion"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def heat_map(demo: Path) -> None:
    """Over a held-out phantom with a large effusion on the right."""
    truth = pl.read_parquet(demo / "raw" / "ground_truth.parquet")
    large = truth.filter(finding="pleural_effusion", side="right", split="test").sort("severity", "study_id")
    files = demo / "raw" / "mimic-cxr-jpg"
    metadata = pl.read_csv(files / "mimic-cxr-2.0.0-metadata.csv.gz")
    frontal = metadata.filter(pl.col("ViewPosition").is_in(["PA", "AP"]), study_id=int(large["study_id"][-1]))
    picture = next((files / "files").rglob(f"{frontal['dicom_id'][0]}.jpg"))
    script, model = HERE.parent / "examples" / "heat_map.py", demo / "run" / "last"
    subprocess.run([sys.executable, script, model, picture, PHRASE, PICTURES / "heat_map.png"], check=True)


def visit(browser: Browser, address: str, name: str, width: int, height: int) -> None:
    """The page with a phrase asked for."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
    page.goto(address)
    page.locator("#medst-timeline .medst-study").first.wait_for()
    page.get_by_label("Phrase to look for").fill(PHRASE)
    page.keyboard.press("Enter")
    page.locator(".medst-curve svg").wait_for()
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(500)
    page.screenshot(path=PICTURES / f"{name}.png")


def main() -> None:
    demo = Path(sys.argv[1] if len(sys.argv) > 1 else "medst-demo")
    PICTURES.mkdir(exist_ok=True)
    heat_map(demo)
    command = [sys.executable, "-m", "medst", "app", demo / "run" / "last", demo / "cohort"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, sync_playwright() as playwright:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        visit(browser, address, "app", 1280, 1060)
        visit(browser, address, "app-phone", 390, 900)
        browser.close()
        process.terminate()


if __name__ == "__main__":
    main()
