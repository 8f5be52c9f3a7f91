"""Open and check what a run starts from, before anything is written: its cohort and tokenizer."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from medst import weights
from medst.cohort.store import Cohort, open_cohort
from medst.errors import MedstError
from medst.pretrain.checkpoint import RunFolder
from medst.recipes import EXPECTED
from medst.recipes.settings import Recipe
from medst.tokenizer import learn_tokenizer, load_tokenizer


def open_training_cohort(path: Path, recipe: Recipe) -> Cohort:
    """Open a cohort to train on.

    Raises:
        MedstError: it has no pairs, or no dates although the time axis is days.
    """
    cohort = open_cohort(path)
    cohort.require("pairs", "training needs one with pairs")
    if recipe.objective.time_axis == "days" and cohort.meta.get("time") == "order":
        raise MedstError(
            f"{cohort.path} knows only the order of a patient's studies, not their dates; give --objective.time-axis steps."
        )
    return cohort


def make_tokenizer(cohort: Cohort, recipe: Recipe) -> PreTrainedTokenizerBase:
    """Load the tokenizer that the recipe names, or that of its start weights; without either, learn one from the reports.

    Raises:
        MedstError: the tokenizer can't be read, or the start weights have none.
    """
    data, start = recipe.data, recipe.start
    if data.tokenizer:
        return load_tokenizer(data.tokenizer, "--data.tokenizer")
    if start.bert:
        return load_tokenizer(start.bert, "--start.bert")
    if start.checkpoint:
        file = Path(start.checkpoint)
        place = weights.tokenizer_folder(file, "--data.tokenizer") if file.is_file() else start.checkpoint
        return load_tokenizer(place, "--start.checkpoint")
    return learn_tokenizer(cohort.require("pairs").filter(split="train")["report"], data.vocabulary)


def find_tokenizer(cohort: Cohort, recipe: Recipe, folder: RunFolder) -> tuple[PreTrainedTokenizerBase, str]:
    """Load the tokenizer of the run in `folder`, or make a new one. Also returns a note if the run's was damaged, else "".

    Raises:
        MedstError: as `make_tokenizer`; or the run's tokenizer is damaged and no model of the run has it.
    """
    if not folder.tokenizer.is_dir():
        return make_tokenizer(cohort, recipe), ""
    try:
        return load_tokenizer(folder.tokenizer), ""
    except MedstError as error:
        for model in (folder.path / "last", folder.path / "best"):
            if weights.is_model(model):
                note = f"{folder.tokenizer} was damaged and is restored from {model}; it was: {error}"
                return load_tokenizer(model), note
        remedy = f"Remove {folder.tokenizer}; the same command then makes the same tokenizer again."
        raise MedstError(f"{error} {remedy}") from None


def notes_on_start(cohort: Cohort, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Notes for the user on a new run: where its vocabulary is from, and how the cohort differs from what is expected."""
    found, start = [], recipe.start
    if not (recipe.data.tokenizer or start.bert or start.checkpoint):
        found.append(
            f"the vocabulary is learnt from the training reports ({len(tokenizer)} pieces, at most --data.vocabulary "
            f"{recipe.data.vocabulary}), so the text encoder starts from random weights: those of a published BERT or "
            "Med-ST checkpoint need their own vocabulary. To start from a BERT, give --start.bert, for instance "
            f"{weights.RELEASED_TOKENIZER}."
        )
    options = cohort.meta.get("options", {})
    expected = EXPECTED.get(recipe.name, {})
    unlike = {name: pair for name, pair in expected.items() if options.get(name, pair[0]) != pair[0]}
    if unlike:
        has = " ".join(f"--{name} {options[name]}" for name in unlike)
        wants = " ".join(f"--{name} {value}" for name, (value, _) in unlike.items())
        reasons = "; ".join(reason for _, reason in unlike.values())
        found.append(
            f"{cohort.path} was prepared with {has}, but recipe {recipe.name} expects {wants} ({reasons}). Training "
            f"continues; to change it, prepare the cohort again with {wants}."
        )
    return found
