"""The pages in docs: links, names, generated parts and the built site."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from docs.generate import generated, imports_of_rooms, purpose

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    file = ""
    for named, name in re.findall(r"`(?:tests/)?([\w/]+\.py)?(?:::(\w+))?[`, ]", page.read_text()):
        if named.rpartition("/")[2].startswith("test_"):
            file = named
            assert (ROOT / "tests" / file).is_file(), file
        if name:
            assert f"def {name}(" in (ROOT / "tests" / file).read_text(), f"{file}::{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_another_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_file_that_the_map_names_exists() -> None:
    text = (ROOT / "docs" / "code.md").read_text().partition("## The rooms")[0]
    named = re.findall(r"`([\w/]+\.(?:py|toml))`", text)
    assert len(named) >= 20
    for name in named:
        rooms = (
            ROOT,
            ROOT / "src" / "medst",
            ROOT / "src" / "medst" / "objective",
            ROOT / "src" / "medst" / "pretrain",
        )
        assert "NAME" in name or "VERB" in name or any((room / name).is_file() for room in rooms), name


def test_what_is_drawn_from_the_code_is_up_to_date() -> None:
    """The map of the rooms, the API page and the table of benchmarks: `python docs/generate.py` writes them."""
    for file, content in generated().items():
        assert file.read_text() == content, f"{file.name} is out of date; run python docs/generate.py"


@pytest.mark.parametrize("page", [*PAGES, *sorted(ROOT.glob("*.md"))], ids=lambda page: page.name)
def test_prose_is_wrapped_at_120_columns(page: Path) -> None:
    """Tables and code blocks are not prose."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    long = [line for line in prose.splitlines() if len(line) > 120 and not line.startswith("|")]
    assert long == []


@pytest.mark.parametrize("room", imports_of_rooms())
def test_every_room_says_what_it_is_for(room: str) -> None:
    assert purpose(room).endswith(".")


def test_the_table_of_differences_names_tests() -> None:
    text = (ROOT / "docs" / "differences.md").read_text()
    assert len(re.findall(r"::test_\w+", text)) > 30


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; the build itself refuses broken links and anchors."""
    place = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "docs", place / "docs")
    shutil.copy(ROOT / "zensical.toml", place)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean"],
        check=False,
        cwd=place,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "site"


def test_the_site_refuses_a_broken_link(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Here\n\n[there](nowhere.md)\n")
    (tmp_path / "zensical.toml").write_text('[project]\nsite_name = "a"\n')
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"], check=False, cwd=tmp_path, capture_output=True
    )
    assert done.returncode != 0


def test_every_page_is_in_the_site_and_its_list(site: Path) -> None:
    listed = (ROOT / "zensical.toml").read_text()
    for page in PAGES:
        assert f'"{page.name}"' in listed
        assert (site / page.with_suffix(".html").name).is_file()


def test_the_site_holds_all_it_links_to_and_fetches_nothing_from_elsewhere(site: Path) -> None:
    for page in sorted(site.glob("*.html")):
        if page.name == "404.html":
            continue  # its links are absolute, for wherever the site will be
        html = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*?\ssrc=\"?([^\s\">]+)", html)
        loaded += re.findall(r"<link[^>]*?rel=\"?(?:stylesheet|preload|icon)[^>]*?href=\"?([^\s\">]+)", html)
        for target in loaded:
            assert not target.startswith(("http", "//")), (page.name, target)
        for target in [*loaded, *re.findall(r"<a[^>]*?\shref=\"?([^\s\">]+)", html)]:
            path, _, anchor = target.partition("#")
            if target.startswith(("http", "data:", "mailto:")):
                continue
            there = (page.parent / path).resolve() if path else page
            there = there / "index.html" if there.is_dir() else there
            assert there.is_file(), (page.name, target)
            if anchor and there.suffix == ".html" and not anchor.startswith("__"):
                assert re.search(rf"id=\"?{re.escape(anchor)}[\">\s]", there.read_text()), (page.name, target)


def test_the_questions_are_answered() -> None:
    """The seven questions that users of the released code ask."""
    text = (ROOT / "docs" / "faq.md").read_text()
    for asked in (
        "mimic_cxr_sectioned.csv", "captions.pickle", "reproduce the numbers", "10 epochs", "why do keys not match",
        "own hospital", "heat map",
    ):  # fmt: skip
        assert re.search(rf"^## .*{re.escape(asked)}", text, re.MULTILINE), asked
