"""Fixtures of several rooms. Shapes and dtypes in annotations of the model and the objective are checked at every call."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

from medst.recipes.settings import Recipe

install_import_hook(["medst.model", "medst.objective"], "beartype.beartype")


class Killed(BaseException):
    """Stands for a SIGKILL."""


Killing = Callable[[int], AbstractContextManager[list[str]]]


@pytest.fixture
def killing(monkeypatch: pytest.MonkeyPatch) -> Killing:
    """A context in which the disk ends with its n-th change: that one is torn, if it is a write, and none follows.

    It gives the names of the changes that were asked for; more than n of them mean that the block was killed.
    """

    @contextmanager
    def context(after: int) -> Iterator[list[str]]:
        asked: list[str] = []

        def dying(name: str, real: Callable[..., object]) -> Callable[..., object]:
            def change(*args: object, **more: object) -> object:
                asked.append(name)
                if len(asked) <= after:
                    return real(*args, **more)
                if name == "write_bytes" and len(asked) == after + 1:
                    path, data = args
                    real(path, data[: len(data) // 2])  # type: ignore[index]
                raise Killed

            return change

        with monkeypatch.context() as patch:
            for name in ("replace", "rename", "rmdir", "unlink", "mkdir"):
                patch.setattr(os, name, dying(name, getattr(os, name)))
            patch.setattr(Path, "write_bytes", dying("write_bytes", Path.write_bytes))
            with suppress(Killed):
                yield asked

    return context


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], None]:
    """An offline cache of the Hugging Face hub; what is returned puts a folder's files into it under an id."""
    from tests.weights.checkpoints import offline_hub

    return offline_hub(tmp_path / "hf-home", monkeypatch)


@pytest.fixture(scope="session")
def phantom_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The raw trees of a few dozen phantom patients."""
    from medst_phantom.mimic import write_phantom

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
