"""What the pages in docs point at is there."""

import re
from pathlib import Path

import pytest

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


def test_the_table_of_differences_names_tests() -> None:
    text = (ROOT / "docs" / "differences.md").read_text()
    assert len(re.findall(r"::test_\w+", text)) > 30
