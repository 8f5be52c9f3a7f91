"""Commands whose settings start from a recipe: `medst VERB RECIPE ...`."""

import shlex
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import tyro

from medst import recipes
from medst.errors import MedstError
from medst.recipes.settings import Recipe

Command = TypeVar("Command")


class WrongRecipe(MedstError):
    """The recipe is missing or not the first argument."""


Settings = Annotated[Recipe, tyro.conf.arg(name="")]
"""All fields of a recipe as flags, without a prefix."""


def parse(verb: str, command: Callable[..., Command], words: Sequence[str]) -> Command:
    """Read the arguments of a command whose first word is a recipe and whose other defaults come from that recipe.

    Args:
        verb: name of the command.
        command: dataclass of its arguments; the recipe is its field `settings`.
        words: arguments after the verb.

    Raises:
        WrongRecipe: the first word is neither a recipe nor a request for help, or there is a flag --recipe.
    """
    has_flag = any(word.partition("=")[0] == "--recipe" for word in words)
    if has_flag or not words or words[0] not in (*recipes.RECIPES, "-h", "--help"):
        raise WrongRecipe(_correction(verb, list(words)))
    required: dict[str, Any] = {"cohort": tyro.MISSING, "out": tyro.MISSING}
    return tyro.extras.overridable_config_cli(
        {name: (_description(name), command(**required, settings=recipe)) for name, recipe in recipes.RECIPES.items()},
        prog=f"medst {verb}",
        description=command.__doc__,
        args=words,
    )


def _description(name: str) -> str:
    return (getattr(recipes, name).__doc__ or "").partition("\n")[0]


def _correction(verb: str, words: list[str]) -> str:
    for place, word in enumerate(words):
        flag, _, value = word.partition("=")
        if flag == "--recipe":  # where the recipe stood in earlier versions
            value = value or (words[place + 1] if place + 1 < len(words) else "")
            first, rest = _split(words[:place] + words[place + 1 + (word == flag) :])
            name = value.lower() if value.lower() in recipes.RECIPES else first or "RECIPE"
            return f"--recipe is now the first argument: {shlex.join(['medst', verb, name, *rest])}"
    given = f"'{words[0]}' is not a recipe" if words else "no recipe is given"
    name, rest = _split(words or ["COHORT", "RUN"])
    example = shlex.join(["medst", verb, name or "tiny", *rest])
    return f"{given}; name {', '.join(recipes.RECIPES)} before the other arguments, such as: {example}"


def _split(words: list[str]) -> tuple[str, list[str]]:
    """The first word that is a recipe in upper or lower case, or "", and the other words."""
    for place, word in enumerate(words):
        if word.lower() in recipes.RECIPES:
            return word.lower(), words[:place] + words[place + 1 :]
    return "", words
