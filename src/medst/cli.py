"""The command line: one function a verb. It reads arguments, calls one function and prints the outcome.

Unusual here: nothing heavy is imported at the top, so that `medst --help` answers at once.
"""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from medst import __version__, cli_measure, cli_use
from medst.cli_arguments import CohortPath, Out, Raw, RecipeName, Run, Source
from medst.cohort.options import Options
from medst.errors import MedstError
from medst.files import is_full
from medst.recipes import RECIPES
from medst.recipes.settings import Recipe

INTERRUPTED, TERMINATED = 130, 143
RESUMING = ("demo", "phantom", "prepare", "pretrain", "evaluate", "ablate", "embed")
"""Verbs that continue what the same command began."""
AS_RELEASED = Options()


def demo(
    out: Out = Path("medst-demo"), /, patients: int = 1100, seed: int = 0, epochs: int = 14, workers: int = 0
) -> None:
    """Phantom data, prepare, pretrain, evaluate, report: the whole road once, on a laptop's CPU.

    Args:
        out: folder for everything; a demo that was stopped is resumed.
        patients: phantom patients to draw.
        seed: of the phantom and of the run.
        epochs: passes over the training sequences.
        workers: processes that draw and read images; 0: one a core.
    """
    from medst.demo import run_demo

    if (out / "raw").exists():
        print(f"Resuming the demo in {out}: what is finished is not done again.", file=sys.stderr)
    outcome = run_demo(out, patients=patients, seed=seed, epochs=epochs, workers=workers)
    if not outcome.finished:
        print(f"Stopped. `medst demo {out}` with the same options resumes it.", file=sys.stderr)
        raise SystemExit(INTERRUPTED)
    print(outcome.headline)
    print(f"Look at a patient over time: medst app {out / 'run' / 'last'} {out / 'cohort'}")


def phantom(
    out: Out,
    /,
    patients: int = 1000,
    seed: int = 0,
    workers: int = 0,
    test_share: float = 0.2,
    valid_share: float = 0.1,
    trees: tuple[Literal["mimic-cxr", "rsna", "covidx", "chexpert-plus", "open-i", "all"], ...] = ("mimic-cxr",),
) -> None:
    """Write synthetic patients in the raw layouts of MIMIC-CXR-JPG and MS-CXR-T, or of other data sets.

    Args:
        out: new folder, or one whose phantom was not finished, which is resumed.
        patients: how many, in each tree.
        seed: the same seed writes the same bytes, whatever the number of workers.
        workers: processes; 0: one a core.
        test_share: share of patients in the test split of mimic-cxr.
        valid_share: share of patients in the validation split of mimic-cxr.
        trees: which data sets: mimic-cxr goes to OUT/mimic-cxr-jpg and OUT/ms-cxr-t, each other one to OUT and its name.
    """
    from medst.progress import Display
    from medst_phantom.mimic import write_phantom
    from medst_phantom.others import write_tree
    from medst_phantom.output_folder import OTHER_TREES

    wanted = ("mimic-cxr", *OTHER_TREES) if "all" in trees else tuple(dict.fromkeys(trees))
    common: dict[str, Any] = {"patients": patients, "seed": seed, "workers": workers}
    said = []
    with Display(list(wanted)) as display:
        for name in wanted:
            progress = display.stage(name)
            if name == "mimic-cxr":
                shares: dict[str, Any] = {"test_share": test_share, "valid_share": valid_share}
                said.append(f"{out}: " + _counts(write_phantom(out, **common, **shares, progress=progress)))
            else:
                said.append(f"{out / name}: " + _counts(write_tree(name, out / name, **common, progress=progress)))
    print("\n".join(said))


def prepare(
    dataset: Positional[Literal["mimic-cxr", "chexpert-plus", "open-i", "table", "ms-cxr-t", "rsna", "covidx"]],
    raw: Raw,
    cohort: CohortPath,
    /,
    options: Annotated[Options, arg(name="")] = AS_RELEASED,
    workers: int = 0,
    cluster: str | None = None,
    max_rejected: float = 0.01,
) -> None:
    """Turn a raw data set into a cohort.

    Args:
        dataset: which data set RAW holds.
        raw: its folder, as downloaded; for table the CSV or Parquet file.
        cohort: folder to write; a preparation that was stopped is resumed.
        options: what to do otherwise than released.
        workers: processes; 0: one a core.
        cluster: read the pictures on a cluster instead: dask:ADDRESS, ray or ray:ADDRESS.
        max_rejected: largest share of images, reports and rows that may be unreadable or contradictory.
    """
    from medst.cohort.prepare import prepare as run
    from medst.progress import Display

    with Display(["prepare"]) as display:
        meta = run(
            dataset,
            raw,
            cohort,
            options,
            workers=workers,
            cluster=cluster,
            max_rejected=max_rejected,
            progress=display.stage("prepare"),
        )
    print(f"{cohort}: " + _counts(meta["counts"]))
    for remark in _remarks(meta):
        print(remark)
    rows, columns = meta.get("rows", {}), meta.get("columns", {})  # cohorts of earlier versions have neither
    if rows:
        print("Rows: " + _counts(rows))
    if columns.get("unused"):
        print("Columns that are not used: " + ", ".join(name or "(no name)" for name in columns["unused"]))
    if columns.get("like_labels"):
        names = " ".join(shlex.quote(name) for name in columns["like_labels"])
        print(
            f"Columns of only 1, 0, -1 and blanks; to keep them as labels, prepare another cohort with --labels {names}"
        )
    if rows.get("left_out") or any(n for name, n in meta["counts"].items() if name.startswith("rejected")):
        print(f"What was left out, and why: {cohort / 'rejected.csv'}")


def inspect(cohort: CohortPath, /, out: Path | None = None, pairs: int = 12, seed: int = 0) -> None:
    """Show what is in a cohort: counts, lengths, labels, times and random pairs, as a page and as JSON.

    Args:
        cohort: folder of a finished cohort of any data set.
        out: the page; beside the cohort, under its name, if not given. The JSON file lies beside it, as NAME-numbers.json.
        pairs: how many random rows to show.
        seed: draws them.
    """
    from medst.pages.inspect import inspect as run
    from medst.pages.inspect import numbers_of

    page = run(cohort, out, pairs=pairs, seed=seed)
    print(f"{page}\n{numbers_of(page)}")


def _pretrain_verb(default: Recipe) -> Callable[..., None]:
    def pretrain(
        cohort: CohortPath,
        run: Run,
        /,
        recipe: RecipeName = "tiny",
        dry_run: bool = False,
        settings: Annotated[Recipe, arg(name="")] = default,
    ) -> None:
        """Train a model on a cohort; a run that was stopped is resumed.

        Args:
            cohort: folder of a prepared cohort with pairs.
            run: folder of the run.
            recipe: where the settings below start from.
            dry_run: only say what the run would take: hours, memory, which GPUs hold it, disk; writes nothing.
            settings: all settings.
        """
        settings.check()  # before the seconds that the imports take
        from medst.pretrain import pretrain as go
        from medst.progress import Display

        if dry_run:
            from medst.pretrain.dry_run import estimate

            print(estimate(cohort, settings))
            return
        if os.environ.get("RANK", "0") != "0":  # one of several processes, of which the first one speaks
            go(cohort, run, settings)
            return
        with Display(["pretrain"]) as display:
            stage = display.stage("pretrain")
            outcome = go(cohort, run, settings, stage, say=lambda note: print(f"Note: {note}", file=sys.stderr))
        for state in outcome.get("damaged_states", ()):
            print(f"{run}: {state} was damaged and is set aside; the run resumed from the one before.", file=sys.stderr)
        if not outcome["finished"]:
            print(f"Stopped after {outcome['steps']} steps; the same command resumes from there.", file=sys.stderr)
            raise SystemExit(INTERRUPTED)
        print(
            f"{run}: trained to epoch {outcome['epochs']}, best validation loss {outcome['best_loss']:.4f} in {run / 'best'}"
        )
        print(f"Next: {shlex.join(['medst', 'evaluate', 'all', str(run / 'best'), str(cohort)])}")

    return pretrain


def convert(source: Source, out: Out, /, tokenizer: str | None = None) -> None:
    """Turn a released Med-ST or MGCA checkpoint into a model folder, or such a folder back into a checkpoint.

    Args:
        source: a released checkpoint, or a model folder that was made from one.
        out: folder to write, or the checkpoint's file on the way back.
        tokenizer: folder with Bio_ClinicalBERT's vocab.txt, or its hub id; the checkpoint's own folder if not given.
    """
    if not source.exists():
        raise MedstError(f"{source}: no such file or folder.")
    from medst import weights

    if source.is_dir():
        weights.export(source, out)
    else:
        weights.convert(source, out, tokenizer=tokenizer)
    print(out)


def _remarks(meta: dict[str, Any]) -> Iterator[str]:
    """What to know of a cohort before it is used."""
    counts = meta["counts"]
    if losing := counts.get("reports_losing_letters"):
        yield (
            f"{losing} of {meta['seen']['report']} reports lose letters that are not ASCII (the released cleaning drops "
            "them, and the whole part of decimals); --text whole, into another cohort, keeps them."
        )
    if meta["dataset"] == "table" and meta.get("time") == "order":
        yield "The times are whole numbers: taken as an order of each patient's studies, not as dates."
    if counts.get("train_pairs") == 0:
        yield "No training pairs: pretrain has nothing to learn from; add a split column or more patients."
    if counts.get("valid_pairs") == 0:
        yield "No validation pairs: pretrain can't choose the best epoch; add a split column or more patients."


def _counts(counts: dict[str, Any]) -> str:
    shown = {name.replace("_", " "): value for name, value in counts.items() if isinstance(value, int)}
    one = {name: name.removesuffix("ies") + "y" if name.endswith("ies") else name.removesuffix("s") for name in shown}
    return ", ".join(f"{value} {one[name] if value == 1 else name}" for name, value in shown.items())


def _verbs(argv: list[str]) -> dict[str, Callable[..., None]]:
    # Which recipe the flags of `pretrain` and `ablate` start from must be known before tyro reads them.
    name = "tiny"
    for i, word in enumerate(argv):
        if word == "--recipe" and i + 1 < len(argv):
            name = argv[i + 1]
        elif word.startswith("--recipe="):
            name = word.partition("=")[2]
    default = RECIPES.get(name, RECIPES["tiny"])
    return {
        "demo": demo,
        "phantom": phantom,
        "prepare": prepare,
        "inspect": inspect,
        "pretrain": _pretrain_verb(default),
        "evaluate": cli_measure.evaluate,
        "ablate": cli_measure.ablate_verb(default),
        "report": cli_measure.report,
        "embed": cli_use.embed,
        "app": cli_use.app,
        "convert": convert,
    }


def main(argv: list[str] | None = None) -> None:
    """Entry point of `medst`: exit 0 done, 1 refused or failed, 2 wrong arguments, 130 interrupted, 143 terminated."""
    argv = sys.argv[1:] if argv is None else argv
    if argv == ["--version"]:
        print(__version__)
        return
    argv = argv or ["--help"]
    before = _catch_termination()
    try:
        for previous, word in pairwise(argv):
            if not word and not previous.startswith("--"):  # a shell variable without a value; "" would be this folder
                raise MedstError(f"the argument after {previous!r} is empty; give a name, or . for this folder.")
        tyro.extras.subcommand_cli_from_dict(_verbs(argv), prog="medst", description=_DESCRIPTION, args=argv)
    except MedstError as error:
        print(f"medst: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt as stop:
        terminated = isinstance(stop, _Terminated)
        word = "terminated" if terminated else "interrupted"
        print(f"medst: {word}{_remedy(argv, '; the same command resumes')}.", file=sys.stderr)
        raise SystemExit(TERMINATED if terminated else INTERRUPTED) from None
    except BrokenPipeError:  # the reader of our output (`| head`) has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:
        if os.environ.get("MEDST_DEBUG"):
            raise
        where = f" ({error.filename})" if error.filename else ""
        if is_full(error):
            ends = _remedy(argv, ", which resumes")
            print(f"medst: the disk is full{where}; make room and run the same command again{ends}.", file=sys.stderr)
        else:
            print(f"medst: {error.strerror or error}{where}.", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


class _Terminated(KeyboardInterrupt):
    """What a scheduler's SIGTERM raises, so that it ends a command as Ctrl-C does."""


def _catch_termination() -> Any:
    """Let SIGTERM raise `_Terminated`; the handler before, or None where nothing was changed."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return None
    process = os.getpid()

    def end(*_: object) -> None:
        if os.getpid() != process:  # a forked worker, which its parent ends in this way
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        raise _Terminated

    return signal.signal(signal.SIGTERM, end)


def _remedy(argv: list[str], promise: str) -> str:
    return promise if argv and argv[0] in RESUMING else ""


_DESCRIPTION = "Learn from chest X-rays and their reports over space (views) and time (a patient's studies)."

if __name__ == "__main__":
    main()
