"""Recipes `paper` and `modern` from the command line, made small by flags."""

import csv
import json
import re
import shlex
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.weights import checkpoints
from tests.weights.checkpoints import bert, deit

import medst
from medst import cli, jobs
from medst.cohort.store import open_cohort
from medst.pretrain.setup import make_tokenizer, notes_on_start
from medst.recipes import RECIPES

SHRINK = shlex.split(
    "--model.vision.image-size 32 --model.vision.width 32 --model.vision.depth 1 --model.vision.heads 2 "
    "--model.text.width 32 --model.text.layers 1 --model.text.heads 2 --model.text.intermediate 32 "
    "--model.projection-hidden 32 --model.embedding 16 --data.sequences-per-batch 18 --data.vocabulary 400 "
    "--optimiser.epochs 1 --run.logger csv"
)


def steps(run: Path) -> list[float]:
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["split"] == "train"]


@pytest.mark.parametrize("name", ["paper", "modern"])
def test_a_recipe_trains_two_steps(
    name: str, phantom_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    cli.main(["pretrain", name, str(phantom_cohort), str(run), *SHRINK])
    assert len(steps(run)) == 2
    said = capsys.readouterr()
    assert "Note: the vocabulary is learnt from the training reports" in said.err
    assert "random weights" in said.err
    assert ("recipe modern expects --frontal one-per-study --text whole" in said.err) is (name == "modern")
    assert said.out.splitlines()[-1] == f"Next: medst evaluate all {run / 'best'} {phantom_cohort}"
    assert medst.load(run / "best").recipe.name == name


@pytest.mark.parametrize("name", ["paper", "modern"])
def test_a_recipe_is_ablated_with_its_flags(
    name: str, phantom_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, because starting others takes longer than training."""
    monkeypatch.setattr(jobs, "ProcessPoolExecutor", lambda jobs, *_: ThreadPoolExecutor(jobs))
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    words = ["ablate", name, str(phantom_cohort), str(tmp_path / "job"), "--seeds", "1", *SHRINK]
    cli.main([*words, "--only", "no-local", "--optimiser.lr", "1e-3"])
    for variant in ("reference", "no-local"):
        run = tmp_path / "job" / "runs" / f"{variant}-0"
        assert len(steps(run)) == 2
        recipe = json.loads((run / "settings.json").read_text())["recipe"]
        assert (recipe["name"], recipe["optimiser"]["lr"], recipe["model"]["text"]["width"]) == (name, 1e-3, 32)


def test_a_run_starts_from_a_bert_and_a_deit_of_the_hub(
    phantom_cohort: Path,
    tmp_path: Path,
    hub: Callable[[str, Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub("emilyalsentzer/Bio_ClinicalBERT", bert(tmp_path / "bert"))
    hub("facebook/deit-base-patch16-224", deit(tmp_path / "deit"))
    run = tmp_path / "run"
    words = ["--start.bert", "emilyalsentzer/Bio_ClinicalBERT", "--start.deit", "facebook/deit-base-patch16-224"]
    # A learning rate too small to change anything in float32 leaves the start weights visible.
    still = ["--optimiser.lr", "1e-30", "--optimiser.lr-min", "0", "--optimiser.weight-decay", "0"]
    cli.main(["pretrain", "modern", str(phantom_cohort), str(run), *SHRINK, *words, *still])
    assert "the vocabulary is learnt" not in capsys.readouterr().err
    found = load_file(run / "last" / "model.safetensors")
    theirs = torch.load(tmp_path / "bert" / "pytorch_model.bin")
    words_of = "embeddings.word_embeddings.weight"
    torch.testing.assert_close(found[f"text.bert.{words_of}"], theirs[f"bert.{words_of}"])
    vit = load_file(tmp_path / "deit" / "model.safetensors")
    torch.testing.assert_close(found["vision.norm.weight"], vit[next(n for n in vit if n.endswith("layernorm.weight"))])
    assert medst.load(run / "last").tokenizer.get_vocab()["[SEP]"] == checkpoints.PIECES.index("[SEP]")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--start.bert", "{}/none"], r"--start.bert .*/none: no such file or folder"),
        (
            ["--start.bert", "{}/bert", "--data.tokenizer", "{}/other"],
            r"has 40 word embeddings, but the tokenizer has 41",
        ),
        (
            ["--start.bert", "{}/bert", "--model.text.heads", "4"],
            r"weights are for 2 attention heads, not 4; give --model.text.heads 2",
        ),
        (["--start.deit", "{}/bert"], r"pytorch_model.bin does not fit this model; missing: "),
        (["--start.checkpoint", "{}/alone/medst.ckpt"], r"has no tokenizer beside it: .*--data.tokenizer emilyals"),
        (
            ["--start.checkpoint", "{}/alone/medst.ckpt", "--data.tokenizer", "{}/other"],
            r"has 40 word .*41 pieces; give",
        ),
        (["--data.tokenizer", "someone/mistyped"], r"--data.tokenizer someone/mistyped: .*HF_HUB_OFFLINE is set"),
        (["--data.sequences-per-batch", "1000"], "fewer than the 1000 of one batch"),
    ],
)
def test_runs_that_cannot_start_are_refused_before_anything_is_written(
    words: list[str],
    said: str,
    phantom_cohort: Path,
    tmp_path: Path,
    hub: Callable[[str, Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    bert(tmp_path / "bert")
    other = checkpoints.write_vocabulary(tmp_path / "other") / "vocab.txt"
    other.write_text("\n".join([*checkpoints.PIECES, "more"]))
    (tmp_path / "alone").mkdir()
    torch.save({"state_dict": checkpoints.medst_state()}, tmp_path / "alone" / "medst.ckpt")
    run = tmp_path / "run"
    given = [*SHRINK, *(word.format(tmp_path) for word in words)]
    with pytest.raises(SystemExit) as stop:
        cli.main(["pretrain", "modern", str(phantom_cohort), str(run), *given])
    assert stop.value.code == 1
    error = capsys.readouterr().err.strip()
    assert re.search(said, error), error
    assert len(error.splitlines()) == 1
    assert not run.exists()


def test_a_run_that_an_earlier_version_refused_can_start(phantom_cohort: Path, tmp_path: Path) -> None:
    """It had written settings.json before it refused a vocabulary of 28,996 pieces."""
    run = tmp_path / "run"
    words = ["pretrain", "modern", str(phantom_cohort), str(run), *SHRINK]
    cli.main(words)
    file = run / "settings.json"
    settings = json.loads(file.read_text())
    settings["recipe"]["model"]["text"]["vocabulary"] = 28996
    for path in sorted(run.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    file.write_text(json.dumps(settings))
    cli.main(words)
    assert len(steps(run)) == 2


def test_modern_has_no_remark_on_a_cohort_that_was_prepared_for_it(phantom_cohort: Path) -> None:
    cohort, modern = open_cohort(phantom_cohort), RECIPES["modern"]
    tokenizer = make_tokenizer(cohort, modern)
    vocabulary, said = notes_on_start(cohort, modern, tokenizer)
    assert "was prepared with --frontal all --text released" in said
    cohort.meta["options"] |= {"frontal": "one-per-study", "text": "whole"}
    assert notes_on_start(cohort, modern, tokenizer) == [vocabulary]
    from_bert = replace(modern, start=replace(modern.start, bert="someone/a-bert"))
    assert notes_on_start(cohort, from_bert, tokenizer) == []
