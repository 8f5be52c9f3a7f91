"""Every verb that writes: two at once, on a full disk, over leftovers, and from damaged files."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

import medst
from medst import weights
from medst.cli import main
from medst.files import claim

SMALL = (
    "--model.vision.image-size", "32", "--model.vision.patch-size", "16", "--model.vision.width", "32",
    "--model.vision.depth", "1", "--model.vision.heads", "2", "--model.text.width", "32", "--model.text.layers", "1",
    "--model.text.heads", "2", "--model.text.intermediate", "64", "--model.text.pieces", "48",
    "--model.projection-hidden", "32", "--model.embedding", "16", "--data.sequences-per-batch", "6",
    "--data.vocabulary", "300", "--data.crop", "32", "--optimiser.epochs", "1",
)  # fmt: skip


@pytest.fixture(scope="module")
def places(
    phantom_tree: Path, phantom_cohort: Path, phantom_comparisons: Path, small_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:  # fmt: skip
    """Inputs of the verbs, by name."""
    home = tmp_path_factory.mktemp("outputs")
    shutil.copytree(small_model, home / "run" / "best")
    given = {"raw": phantom_tree / "mimic-cxr-jpg", "cohort": phantom_cohort, "comparisons": phantom_comparisons}
    given |= {"model": home / "run" / "best", "results": home / "run" / "results.json", "plain": home / "plain"}
    loaded = medst.load(small_model)
    text = replace(loaded.recipe.model.text, positions=False, token_types=False)
    recipe = replace(loaded.recipe, model=replace(loaded.recipe.model, text=text))
    weights.save(given["plain"], *weights.build(recipe, loaded.tokenizer), loaded.tokenizer, recipe)
    words = ["evaluate", "retrieval", str(given["model"]), str(given["cohort"]), "--untrained", "1", "--no-cache"]
    main(words)
    return given


COMMANDS = {
    "phantom": "phantom OUT --patients 3 --workers 1",
    "prepare": "prepare mimic-cxr raw OUT --workers 1",
    "inspect": "inspect cohort --pairs 2 --out OUT.html",
    "pretrain": "pretrain tiny cohort OUT",
    "evaluate": "evaluate retrieval model cohort --untrained 1 --no-cache --out OUT.json",
    "report": "report results --out OUT.html",
    "embed": "embed model comparisons OUT --rows 40",
    "export": "export plain OUT.ckpt",
    "ablate": "ablate tiny cohort OUT --seeds 1 --only no-laterals",
    "demo": "demo OUT --patients 40 --epochs 1 --workers 1",
}
ALSO = {"inspect others": "inspect comparisons --pairs 2 --out OUT.html"}
LIGHT = [verb for verb in COMMANDS if verb not in ("ablate", "demo")]


def words_of(verb: str, out: Path, places: dict[str, Path]) -> list[str]:
    words = [str(places.get(word, word)).replace("OUT", str(out)) for word in (COMMANDS | ALSO)[verb].split()]
    return words + list(SMALL) if verb in ("pretrain", "ablate") else words


def output_of(verb: str, out: Path) -> Path:
    return Path(next(word for word in (COMMANDS | ALSO)[verb].split() if "OUT" in word).replace("OUT", str(out)))


Refused = Callable[[list[str]], str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must end with exit code 1 and one sentence, and return the sentence."""

    def run(words: list[str]) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(words)
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("medst: ")]
        assert stop.value.code == 1
        assert len(said) == 1
        return said[0]

    return run


# -------------------------------------------------------------------------------------------- two processes, one output


@pytest.mark.parametrize("verb", COMMANDS)
def test_an_output_that_another_process_writes_is_refused(
    verb: str, places: dict[str, Path], tmp_path: Path, refused: Refused
) -> None:
    with claim(output_of(verb, tmp_path / "out")):
        assert "is being written by another process" in refused(words_of(verb, tmp_path / "out", places))
    assert not list(tmp_path.glob("[!.]*"))


@pytest.mark.parametrize(
    "verb",
    ["prepare", pytest.param("pretrain", marks=pytest.mark.slow), pytest.param("embed", marks=pytest.mark.slow)],
)
def test_of_two_processes_on_one_output_the_first_one_finishes(
    verb: str, places: dict[str, Path], tmp_path: Path, refused: Refused
) -> None:
    words, lock = words_of(verb, tmp_path / "out", places), tmp_path / ".out.lock"
    with subprocess.Popen([sys.executable, "-m", "medst", *words], stderr=subprocess.DEVNULL) as first:
        while not (lock.is_file() and lock.read_text()):
            assert first.poll() is None
            time.sleep(0.002)
        first.send_signal(signal.SIGSTOP)  # so that it is still at it
        try:
            assert f"is being written by another process (process {first.pid} on" in refused(words)
        finally:
            first.send_signal(signal.SIGCONT)
    assert first.returncode == 0
    assert output_of(verb, tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------------- a full disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, leave: int) -> None:
    """Leave so many bytes free."""
    with (disk / "filler").open("ab") as file:
        file.truncate(0)
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        with suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, max(1, free - leave))


@pytest.mark.parametrize(
    ("verb", "leave"),
    [
        *((verb, leave) for verb in LIGHT for leave in (0, 20_000)),
        *(
            pytest.param(verb, leave, marks=pytest.mark.slow)
            for verb in LIGHT
            for leave in (100_000, 400_000, 2_000_000)
        ),
        *(pytest.param("ablate", leave, marks=pytest.mark.slow) for leave in (0, 100_000, 1_000_000, 4_000_000)),
        *(pytest.param("demo", leave, marks=pytest.mark.slow) for leave in (0, 1_000_000, 4_000_000, 16_000_000)),
    ],
)
def test_a_full_disk_is_one_sentence_and_the_same_command_succeeds_once_there_is_room(
    verb: str, leave: int, places: dict[str, Path], disk: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(disk, leave)
    words = words_of(verb, disk / "out", places)
    try:
        said = refused(words)
    except pytest.fail.Exception:  # it had room enough
        assert leave >= 20_000
        assert output_of(verb, disk / "out").exists()
    else:
        assert any(word in said for word in ("is full", "MB free", "GB free")), said
    (disk / "filler").unlink()
    main(words)
    assert output_of(verb, disk / "out").exists()
    assert not [path for path in disk.rglob("*.part") if "tensorboard" not in str(path)]


# --------------------------------------------------------------------------------------------------------- damaged files


READ = [
    ("inspect", "cohort", ("cohort.json", "pairs.parquet", "images.parquet", "images.npy", "rejected.csv")),
    ("inspect others", "comparisons", ("cohort.json", "comparisons.parquet", "sentences.parquet")),
    ("export", "plain", ("config.json", "model.safetensors", "objective.safetensors", "tokenizer.json")),
    ("report", "results", ("results.json",)),
    ("pretrain", "OUT", ("settings.json", "environment.json", "metrics.csv", "tokenizer/tokenizer.json")),
    ("pretrain", "OUT", ("state/*/run.json", "state/*/sha256.json", "state/*/weights.safetensors")),
    ("embed", "OUT", ("embed.json", "part-00000.parquet")),
    ("prepare", "OUT", ("cohort.json",)),
    ("phantom", "OUT", ("phantom.json",)),
    ("evaluate", "OUT", ("results",)),
]


def _file(place: Path, name: str) -> Path:
    return sorted(place.glob(name))[-1] if place.is_dir() else place


def damaged(content: bytes, draw: random.Random) -> Iterator[bytes]:
    """The file emptied, truncated, of another type, deeply nested, and with flipped bytes."""
    yield b""
    yield content[: draw.randrange(1, len(content))]
    yield b"[" * 100_000
    yield b"\x93NUMPY\x01\x00" + bytes(120)
    for reach in (300, len(content)):
        flipped = bytearray(content)
        for _ in range(draw.choice((1, 1, 8))):
            flipped[draw.randrange(min(reach, len(content)))] ^= draw.randrange(1, 256)
        yield bytes(flipped)


@pytest.mark.parametrize(
    ("verb", "place", "name"),
    [(verb, place, name) for verb, place, names in READ for name in names],
)
def test_a_file_damaged_anywhere_ends_in_one_sentence(
    verb: str,
    place: str,
    name: str,
    places: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    """Or in none, where the damage can't be told from other content; a checkpoint falls back to the one before."""
    given, out, whole = dict(places), tmp_path / "out", tmp_path / "whole"
    if place in places:
        where = given[place] = tmp_path / places[place].name
        source = places[place]
    else:
        source = where = output_of(verb, out)
        main(words_of(verb, out, places))
    copy: Callable[..., object] = shutil.copytree if source.is_dir() else shutil.copy
    copy(source, whole)
    for content in damaged(_file(whole, name).read_bytes(), random.Random(name)):
        if where.is_dir():
            shutil.rmtree(where)
        copy(whole, where)
        _file(where, name).write_bytes(content)
        capsys.readouterr()
        code: object = 0
        try:
            main(words_of(verb, out, given))
        except SystemExit as stop:
            code = stop.code
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("medst: ")]
        assert (code, len(said)) in ((0, 0), (1, 1)), (content[:80], said)


# ------------------------------------------------------------------------------------------------------------- leftovers


@pytest.mark.parametrize("verb", ["phantom", "prepare", "pretrain", "embed"])
def test_leftovers_of_a_first_write_do_not_block(verb: str, places: dict[str, Path], tmp_path: Path) -> None:
    first = {"phantom": "phantom.json", "prepare": "header.json", "pretrain": "settings.json", "embed": "embed.json"}
    out = tmp_path / "out"
    out.mkdir()
    for leftover in (f"{first[verb]}.part", f"{first[verb]}.77.part", ".lock"):
        (out / leftover).touch()
    (tmp_path / ".out.lock").write_text("4194304 elsewhere")
    main(words_of(verb, out, places))
    assert output_of(verb, out).exists()
