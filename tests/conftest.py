"""Fixtures of several rooms. Shapes and dtypes in annotations of the model and the objective are checked at every call."""

from pathlib import Path

import pytest
from jaxtyping import install_import_hook

from medst.recipes.settings import Recipe

install_import_hook(["medst.model", "medst.objective"], "beartype.beartype")


@pytest.fixture(scope="session")
def phantom_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The raw trees of a few dozen phantom patients."""
    from medst.phantom.write import write_phantom

    out = tmp_path_factory.mktemp("phantom_tree") / "raw"
    write_phantom(out, patients=40, seed=5, workers=2)
    return out


@pytest.fixture(scope="session")
def phantom_cohort(phantom_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mimic-cxr cohort of phantom patients."""
    from medst.cohort.prepare import prepare

    cohort = tmp_path_factory.mktemp("phantom_cohort") / "mimic-cxr"
    prepare("mimic-cxr", phantom_tree / "mimic-cxr-jpg", cohort, workers=2)
    return cohort


@pytest.fixture(scope="session")
def phantom_comparisons(phantom_tree: Path, phantom_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ms-cxr-t cohort of the same patients."""
    from medst.cohort.options import Options
    from medst.cohort.prepare import prepare

    cohort = tmp_path_factory.mktemp("phantom_comparisons") / "ms-cxr-t"
    prepare("ms-cxr-t", phantom_tree / "ms-cxr-t", cohort, Options(images=phantom_cohort), workers=2)
    return cohort


@pytest.fixture(scope="session")
def small_model(phantom_cohort: Path, small_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model that was never trained, with a tokenizer of the phantom cohort's reports."""
    import torch

    from medst import weights
    from medst.cohort.store import open_cohort
    from medst.tokenizer import learn_tokenizer

    pairs = open_cohort(phantom_cohort).pairs
    assert pairs is not None
    tokenizer = learn_tokenizer(pairs["report"].to_list(), 400)
    torch.manual_seed(11)
    model, objective = weights.build(small_recipe, tokenizer)
    folder = tmp_path_factory.mktemp("small_model") / "best"
    weights.save(folder, model, objective, tokenizer, small_recipe)
    return folder
