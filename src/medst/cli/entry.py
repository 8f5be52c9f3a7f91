"""Entry point of `medst`: chooses the verb, and turns signals and errors into a sentence and an exit code."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import tyro

from medst import __version__
from medst.cli import recipes
from medst.cli.ablate import Ablate
from medst.cli.app import app
from medst.cli.arguments import INTERRUPTED, TERMINATED
from medst.cli.convert import convert
from medst.cli.demo import demo
from medst.cli.embed import embed
from medst.cli.evaluate import evaluate
from medst.cli.export import export
from medst.cli.inspect import inspect
from medst.cli.phantom import phantom
from medst.cli.prepare import prepare
from medst.cli.pretrain import Pretrain
from medst.cli.report import report
from medst.errors import MedstError
from medst.files import is_full

VERBS: dict[str, Callable[..., None] | type[Pretrain] | type[Ablate]] = {
    "demo": demo,
    "phantom": phantom,
    "prepare": prepare,
    "inspect": inspect,
    "pretrain": Pretrain,
    "evaluate": evaluate,
    "ablate": Ablate,
    "report": report,
    "embed": embed,
    "app": app,
    "convert": convert,
    "export": export,
}
RESUMING = ("demo", "phantom", "prepare", "pretrain", "evaluate", "ablate", "embed")
"""Verbs that resume when the same command is run again."""


def main(argv: list[str] | None = None) -> None:
    """Run `medst`; exit codes: 0 done, 1 refused or failed, 2 wrong arguments, 130 interrupted, 143 terminated."""
    argv = sys.argv[1:] if argv is None else argv
    if argv == ["--version"]:
        print(__version__)
        return
    argv = argv or ["--help"]
    before = _catch_termination()
    try:
        _dispatch(argv)
    except MedstError as error:
        print(f"medst: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, recipes.WrongRecipe) else 1) from None
    except KeyboardInterrupt as stop:
        terminated = isinstance(stop, _Terminated)
        word = "terminated" if terminated else "interrupted"
        print(f"medst: {word}{_if_resuming(argv, '; the same command resumes')}.", file=sys.stderr)
        raise SystemExit(TERMINATED if terminated else INTERRUPTED) from None
    except BrokenPipeError:  # the reader of our output (`| head`) has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:
        if os.environ.get("MEDST_DEBUG"):
            raise
        where = f" ({error.filename})" if error.filename else ""
        if is_full(error):
            remedy = f"make room and run the same command again{_if_resuming(argv, ', which resumes')}"
            print(f"medst: the disk is full{where}; {remedy}.", file=sys.stderr)
        else:
            print(f"medst: {error.strerror or error}{where}.", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _dispatch(argv: list[str]) -> None:
    for previous, word in pairwise(argv):
        if not word and not previous.startswith("--"):  # an unset shell variable; Path("") would be this folder
            raise MedstError(f"the argument after {previous!r} is empty; give a name, or . for this folder.")
    match argv[0]:
        case "pretrain":
            recipes.parse("pretrain", Pretrain, argv[1:]).run()
        case "ablate":
            recipes.parse("ablate", Ablate, argv[1:]).run()
        case _:
            tyro.extras.subcommand_cli_from_dict(VERBS, prog="medst", description=_DESCRIPTION, args=argv)


class _Terminated(KeyboardInterrupt):
    """Raised at a scheduler's SIGTERM, so that it ends a command as Ctrl-C does."""


def _catch_termination() -> Any:
    """Make SIGTERM raise `_Terminated`; return the previous handler, or None if nothing was changed."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return None
    process = os.getpid()

    def end(*_: object) -> None:
        if os.getpid() != process:  # a forked worker: its parent ends it with SIGTERM
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        raise _Terminated

    return signal.signal(signal.SIGTERM, end)


def _if_resuming(argv: list[str], promise: str) -> str:
    return promise if argv[0] in RESUMING else ""


_DESCRIPTION = "Learn from chest X-rays and their reports over space (views) and time (a patient's studies)."
