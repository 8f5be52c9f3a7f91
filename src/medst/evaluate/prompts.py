"""Prompts of zero-shot classification: sentences whose embeddings stand for a class.

A prompt file is JSON. For a cohort of two classes, prompts for and against one of them:

    {"pneumonia": {"positive": ["There is pneumonia."], "negative": ["There is no pneumonia."]}}

For more classes, one list per class, by the cohort's own names:

    {"normal": ["The lungs are clear."], "pneumonia": ["..."], "COVID-19": ["..."]}
"""

from pathlib import Path
from typing import Any

from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.files import read_json

RELEASED = {
    "pneumonia": {
        "positive": [
            "Findings consistent with pneumonia",
            "Findings suggesting pneumonia",
            "This opacity can represent pneumonia",
            "Findings are most compatible with pneumonia",
        ],
        "negative": [
            "There is no pneumonia",
            "No evidence of pneumonia",
            "No evidence of acute pneumonia",
            "No signs of pneumonia",
        ],
    }
}
"""The prompts of the released code, for RSNA."""


def prompts_for(cohort: Cohort, file: Path | None) -> dict[str, list[str]]:
    """Sentences for each class of a cohort, in the order of its classes.

    Raises:
        MedstError: the file can't be read, or its classes are not those of the cohort; or the classes are not pneumonia
            and its absence, and need a file.
    """
    classes = cohort.classes
    if file is not None:
        return _by_class(read_prompts(file), classes, file)
    if len(classes) != 2 or classes[1].lower() != "pneumonia":
        raise MedstError(
            f"{cohort.path} has the classes {', '.join(classes)}; the released prompts are for pneumonia and its absence. "
            "Give prompts for its classes with --prompts FILE."
        )
    return dict(zip(classes, (RELEASED["pneumonia"]["negative"], RELEASED["pneumonia"]["positive"]), strict=True))


def read_prompts(file: Path) -> dict[str, Any]:
    """Read a prompt file: for each class a list of sentences, or two lists, `positive` and `negative`.

    Raises:
        MedstError: it is missing, not a regular file, not JSON, or does not have this form.
    """
    found = read_json(file, 'give a prompt file such as {"normal": ["..."], "pneumonia": ["..."]} with --prompts')
    if not found:
        raise MedstError(f"{file} names no class; a prompt file has sentences for each class of the cohort.")
    for name, given in found.items():
        if isinstance(given, dict) and given.keys() != {"positive", "negative"}:
            raise MedstError(
                f"{file}: '{name}' has {', '.join(sorted(given)) or 'nothing'}; give a list of sentences, or a 'positive' "
                "and a 'negative' list."
            )
        for texts in given.values() if isinstance(given, dict) else (given,):
            if not isinstance(texts, list) or not texts or not all(_is_sentence(text) for text in texts):
                raise MedstError(f"{file}: the prompts of '{name}' are not a list of sentences.")
    return found


def _is_sentence(text: Any) -> bool:
    # Half of a surrogate pair is valid JSON, but tokenizers refuse it.
    return isinstance(text, str) and bool(text.strip()) and not any("\ud800" <= sign <= "\udfff" for sign in text)


def _by_class(found: dict[str, Any], classes: list[str], file: Path) -> dict[str, list[str]]:
    lower = {name.lower(): name for name in classes}
    unknown = [name for name in found if name.lower() not in lower]
    if unknown:
        raise MedstError(f"{file}: there is no class {', '.join(unknown)}; the cohort's are {', '.join(classes)}.")
    sentences: dict[str, list[str]] = {}
    for name, given in found.items():
        own = {lower[name.lower()]: given}
        if isinstance(given, dict):
            if len(classes) != 2:
                raise MedstError(
                    f"{file}: '{name}' has 'positive' and 'negative', which tell two classes apart; the cohort has "
                    f"{len(classes)}, so give one list per class."
                )
            other = next(each for each in classes if each not in own)
            own = {lower[name.lower()]: given["positive"], other: given["negative"]}
        twice = sorted(own.keys() & sentences.keys())
        if twice:
            raise MedstError(f"{file} gives prompts for {', '.join(twice)} twice; give them once.")
        sentences |= own
    missing = [name for name in classes if name not in sentences]
    if missing:
        raise MedstError(f"{file}: no prompts for {', '.join(missing)}.")
    return {name: sentences[name] for name in classes}
