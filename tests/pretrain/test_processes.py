"""`torchrun ... medst pretrain` with two processes."""

import csv
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medst import load
from medst.weights import build

SETTINGS = (
    "--settings.run.precision fp32 --settings.optimiser.epochs 1 --settings.data.sequences-per-batch 4 "
    "--settings.model.vision.image-size 32 --settings.model.vision.width 32 --settings.model.vision.depth 2 "
    "--settings.model.text.width 32 --settings.model.text.layers 1 --settings.model.text.intermediate 64 "
    "--settings.projection-hidden 32 --settings.run.logger csv --settings.optimiser.ema 0.9"
)


@dataclass
class Started:
    cohort: Path
    folder: Path

    def __call__(self, name: str, processes: int, *more: str) -> "subprocess.CompletedProcess[str]":
        start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        flags = (
            SETTINGS.replace("--settings.projection", "--settings.model.projection")
            .replace("--settings.", "--")
            .split()
        )
        command = [sys.executable, *start, "-m", "medst", "pretrain", "tiny", str(self.cohort), str(self.folder / name)]
        return subprocess.run([*command, *flags, *more], capture_output=True, text=True, timeout=200)

    def losses(self, name: str) -> list[float]:
        with (self.folder / name / "metrics.csv").open(newline="") as file:
            return [float(row["loss"]) for row in csv.DictReader(file)]

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / name / "last" / "model.safetensors")

    def apart(self, one: str, other: str) -> float:
        """Distance of the weights of two runs, relative to the change of the first, because four steps change little."""
        last = load(self.folder / one / "last")
        torch.manual_seed(last.recipe.run.seed)
        before = dict(build(last.recipe, last.tokenizer)[0].named_parameters())
        first, second = self.weights(one), self.weights(other)
        learnt, between = (
            torch.cat([(first[name] - value).detach().flatten() for name, value in compared.items() if name in before])
            for compared in (before, second)
        )
        return (between.norm() / learnt.norm()).item()


@pytest.fixture(scope="module")
def start(phantom_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Started:
    return Started(phantom_cohort, tmp_path_factory.mktemp("processes"))


@pytest.fixture(scope="module")
def two(start: Started) -> list[float]:
    done = start("two", 2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("best validation loss") == 1
    return start.losses("two")


def test_two_processes_and_two_parts_learn_the_same(start: Started, two: list[float]) -> None:
    done = start("parts", 1, "--optimiser.accumulate", "2")
    assert done.returncode == 0, done.stderr[-2000:]
    assert start.losses("parts") == pytest.approx(two, rel=1e-3)
    assert start.apart("two", "parts") < 0.2


def test_shards_learn_the_same(start: Started, two: list[float]) -> None:
    done = start("shards", 2, "--run.engine", "fsdp")
    assert done.returncode == 0, done.stderr[-2000:]
    assert start.losses("shards") == pytest.approx(two, rel=1e-4)
    assert start.apart("two", "shards") < 1e-3


def test_two_processes_resume_to_the_same_bits(start: Started, two: list[float]) -> None:
    stopped = start("again", 2, "--optimiser.stop-after", "2")
    assert "Stopped after 2 steps" in stopped.stderr
    assert start("again", 2).returncode == 0
    assert start.losses("again") == two
    for name, value in start.weights("again").items():
        assert torch.equal(value, start.weights("two")[name]), name


def test_shards_resume_a_run_of_two_processes_but_one_process_does_not(start: Started, two: list[float]) -> None:
    start("moved", 2, "--optimiser.stop-after", "2")
    alone = start("moved", 1)
    assert alone.returncode == 1
    assert "was started with 2 batches per step" in alone.stderr
    assert start("moved", 2, "--run.engine", "fsdp").returncode == 0
    assert start.losses("moved") == pytest.approx(two, rel=1e-4)


def test_every_process_has_its_own_random_numbers(start: Started, two: list[float]) -> None:
    state = max((start.folder / "two" / "state").glob("step-*"))
    first, second = (load_file(state / f"random-{rank}.safetensors")["cpu"] for rank in (0, 1))
    assert not torch.equal(first, second)


def test_two_processes_learn_without_a_loss_that_has_no_weight(start: Started) -> None:
    done = start("no-local", 2, "--objective.local-weight", "0")
    assert done.returncode == 0, done.stderr[-2000:]
    found = start.losses("no-local")
    assert len(found) > 2
    assert all(map(math.isfinite, found))


@pytest.mark.slow
def test_compiled_blocks_learn_the_same_and_stay_compiled(start: Started) -> None:
    assert "Stopped after 3 steps" in start("plain", 1, "--optimiser.stop-after", "3").stderr
    for steps in ("2", "3"):
        done = start("compiled", 1, "--optimiser.stop-after", steps, "--run.compile", "on")
        assert "Stopped after" in done.stderr, done.stderr[-2000:]
    assert start.losses("compiled") == pytest.approx(start.losses("plain"), rel=1e-3)
