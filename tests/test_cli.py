"""The command line as a person sees it: quick help, one sentence per error, exit codes."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medst import __version__, cli
from medst.cli.counts import count_phrase
from medst.errors import MedstError
from medst.recipes import RECIPES


def medst(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "medst", *words],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
        check=False,
    )


def test_help_names_every_verb_and_imports_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from medst.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'transformers', 'polars', 'cv2', 'sklearn', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for verb in (
        "demo",
        "phantom",
        "prepare",
        "pretrain",
        "evaluate",
        "ablate",
        "report",
        "embed",
        "convert",
        "export",
    ):
        assert verb in done.stdout


def test_without_arguments_it_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert not stop.value.code
    said = capsys.readouterr()
    assert "pretrain" in said.out
    assert not said.err


def test_an_empty_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["pretrain", "tiny", "cohort", ""])
    assert stop.value.code == 1
    assert "the argument after 'cohort' is empty" in capsys.readouterr().err


def test_version() -> None:
    assert medst("--version").stdout.strip() == __version__


@pytest.mark.parametrize(
    "words",
    [
        ("prepare", "mimic-cxr", "nowhere", "cohort"),
        ("pretrain", "tiny", "nowhere", "run"),
        ("evaluate", "all", "nowhere", "cohort"),
        ("report", "nowhere"),
        ("ablate", "tiny", "nowhere", "job"),
        ("embed", "nowhere", "cohort", "out"),
        ("convert", "nowhere", "model"),
        ("export", "nowhere", "checkpoint.ckpt"),
    ],
)
def test_a_path_that_is_not_there_gives_one_sentence_that_names_it(words: tuple[str, ...], tmp_path: Path) -> None:
    done = medst(*words[:-1], str(tmp_path / words[-1]))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "nowhere" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("words", [("evaluate", "all", "model"), ("report",)])
def test_verbs_with_several_paths_need_at_least_one(words: tuple[str, ...]) -> None:
    done = medst(*words)
    assert done.returncode == 1
    assert "at least one" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_sigterm_ends_in_a_sentence(tmp_path: Path) -> None:
    words = ["phantom", str(tmp_path / "out"), "--patients", "4000", "--workers", "1"]
    with subprocess.Popen([sys.executable, "-m", "medst", *words], stderr=subprocess.PIPE, text=True) as running:
        while not (tmp_path / ".out.lock").exists():
            assert running.poll() is None
            time.sleep(0.01)
        running.terminate()
        _, said = running.communicate(timeout=120)
    assert running.returncode == 143
    assert said.splitlines()[-1] == "medst: terminated; the same command resumes."
    assert "Traceback" not in said
    assert not (tmp_path / ".out.lock").exists()


def test_what_can_be_refused_at_once_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    """A path into an existing folder is never looked up at the hub."""
    (tmp_path / "run").mkdir()
    wrong = ["--optimiser.lr-min", "1", "--optimiser.lr", "0.1"]
    expected = [
        (["pretrain", "tiny", "COHORT", "run", *wrong], "--optimiser.lr-min 1.0 must be at most"),
        (["ablate", "tiny", "COHORT", "job", *wrong], "--optimiser.lr-min 1.0 must be at most"),
        (["evaluate", "all", "run/best", "COHORT"], "model run/best: no such file or folder"),
        (["evaluate", "probe", "run", "COHORT", "--fractions", "2"], "--fractions 2.0: give shares above 0"),
        (["embed", "run/best", "COHORT", "out"], "model run/best: no such file or folder"),
        (["app", "run/best"], "model run/best: no such file or folder"),
        (["convert", "run/best", "out"], "run/best: no such file or folder"),
        (["export", "run/best", "out"], "run/best: no such file or folder"),
        (["prepare", "table", "none.csv", "COHORT"], "none.csv: no such file; check the path."),
    ]
    script = (
        "import sys\nfrom medst.cli import main\n"
        f"for words in {[words for words, _ in expected]!r}:\n"
        "    try:\n        main(words)\n    except SystemExit as stop:\n        assert stop.code == 1, stop.code\n"
        "    heavy = {'torch', 'transformers', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "    assert not heavy, (words, heavy)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("medst: ")]
    assert len(lines) == len(expected), done.stderr
    for line, (_, said) in zip(lines, expected, strict=True):
        assert said in line


def test_a_count_of_one_is_singular() -> None:
    assert count_phrase({"patients": 1, "studies": 1, "images": 2}) == "1 patient, 1 study, 2 images"


def test_a_wrong_flag_is_named_with_exit_code_2() -> None:
    done = medst("pretrain", "tiny", "cohort", "run", "--optimiser.learning-rate", "1")
    assert done.returncode == 2
    assert "--optimiser.learning-rate" in done.stderr + done.stdout


def test_a_recipe_sets_the_defaults_of_its_flags() -> None:
    tiny, paper = medst("pretrain", "tiny", "--help"), medst("pretrain", "paper", "--help")
    for shown, default in ((tiny, "112"), (paper, "224")):
        after = shown.stdout.partition("--model.vision.image-size")[2].partition("--model.vision")[0]
        assert after.split("(default:")[1].strip(" │\n").startswith(default)


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (MedstError("The cohort is damaged."), "medst: The cohort is damaged.", 1),
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/images.npy"),
            "the disk is full (/data/images.npy)",
            1,
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), "Permission denied (/root/x)", 1),
        (KeyboardInterrupt(), "interrupted", 130),
    ],
)
def test_failures_are_sentences(
    error: BaseException,
    said: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("medst_phantom.mimic.write_phantom", fail)
    with pytest.raises(SystemExit) as stop:
        cli.main(["phantom", str(tmp_path / "out")])
    assert stop.value.code == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (["pretrain"], "medst pretrain tiny COHORT RUN"),
        (["pretrain", "cohort", "run"], "medst pretrain tiny cohort run"),
        (["pretrain", "cohort", "run", "--recipe", "modern", "--run.seed", "1"],
         "medst pretrain modern cohort run --run.seed 1"),
        (["ablate", "--recipe=paper", "cohort", "job"], "medst ablate paper cohort job"),
        (["ablate", "cohort", "job", "--recipe"], "medst ablate RECIPE cohort job"),
        (["pretrain", "cohort", "tiny", "run"], "medst pretrain tiny cohort run"),
        (["pretrain", "--dry-run", "modern", "cohort", "run"], "medst pretrain modern --dry-run cohort run"),
        (["pretrain", "TINY", "cohort", "run"], "medst pretrain tiny cohort run"),
        (["pretrain", "tiny", "--recipe", "modern", "cohort", "run"], "medst pretrain modern cohort run"),
        (["pretrain", "tiny", "cohort", "run", "--recipe", "tiny"], "medst pretrain tiny cohort run"),
        (["pretrain", "tiny", "cohort", "run", "--recipe=other"], "medst pretrain tiny cohort run"),
    ],
)  # fmt: skip
def test_a_command_without_a_recipe_is_answered_with_the_right_one(
    words: list[str], right: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2
    [said] = capsys.readouterr().err.splitlines()
    assert said.endswith(f": {right}")


def test_pretrain_help_lists_the_recipes_and_their_help_the_flags() -> None:
    listed, shown = medst("pretrain", "--help").stdout, medst("ablate", "tiny", "--help").stdout
    assert all(name in listed for name in RECIPES)
    assert "--optimiser.lr " in shown
    assert "--name" not in shown


def test_convert_and_export_point_at_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checkpoint.ckpt").touch()
    for words, other in (
        (["convert", str(tmp_path)], "export"),
        (["export", str(tmp_path / "checkpoint.ckpt")], "convert"),
    ):
        with pytest.raises(SystemExit):
            cli.main([*words, str(tmp_path / "out")])
        assert f"`medst {other}`" in capsys.readouterr().err
