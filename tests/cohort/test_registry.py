"""A data set is one module and one registry entry; the places that depend on them are checked here."""

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from medst.cohort.options import Options
from medst.cohort.registry import DATASETS, Reader

DOCS = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


@pytest.mark.parametrize("name", list(DATASETS))
def test_its_module_has_the_interface(name: str) -> None:
    reader = DATASETS[name].reader()
    for function in ("describe", "write_cohort"):
        expected = list(inspect.signature(getattr(Reader, function)).parameters)[1:]
        assert list(inspect.signature(getattr(reader, function)).parameters) == expected


@pytest.mark.parametrize("name", list(DATASETS))
def test_its_documentation_has_a_row_and_a_section_and_says_what_a_row_is(name: str) -> None:
    assert re.search(rf"\n\| [^|\n]+ \| `{name}` \| [^|\n]+ \| [^|\n]+ \|\n", DOCS)
    assert f"\n| `{name}` | " in DOCS
    assert f"medst prepare {name} " in DOCS


def test_every_option_applies_to_a_data_set_and_every_named_option_exists() -> None:
    named = {option for dataset in DATASETS.values() for option in dataset.options}
    assert named == {field.name for field in fields(Options)}
