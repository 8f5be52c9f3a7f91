"""Every command block and Python block of README.md and docs is run, in order, on phantom data.

Pages are read in the order of `PAGES`, all in one folder, as a user would: what one page writes, the next one uses. A block
that is neither run nor named in `NOT_RUN` fails. `make demo` and `make test` are run by `.ci/run`, not here.
"""

import ast
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.weights.checkpoints import bert, deit, dinov2, offline_hub

from medst.cli import main
from medst.cli.entry import VERBS
from medst.cohort.store import open_cohort
from medst_phantom.mimic import write_phantom
from medst_phantom.others import write_tree

ROOT = Path(__file__).parents[1]
FIRST = (
    "README.md",
    "docs/index.md",
    "docs/data.md",
    "docs/pretrain.md",
    "docs/evaluate.md",
    "docs/use.md",
    "docs/app.md",
)
PAGES = (*FIRST, *sorted({f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} - set(FIRST)))

SMALL = (
    "--optimiser.epochs 1 --run.precision fp32 --data.sequences-per-batch 2 --data.crop 32 "
    "--model.vision.image-size 32 --model.vision.width 32 --model.vision.depth 1 --model.vision.heads 2 "
    "--model.text.width 32 --model.text.layers 1 --model.text.heads 2 --model.text.intermediate 32 "
    "--model.projection-hidden 32 --model.embedding 16"
)
SHRINK = {
    "medst phantom": "--patients 48 --test-share 0.8",
    "medst pretrain": SMALL,
    "medst evaluate": "--untrained 1 --fractions 1",
    "medst app": "--port 0",
    "medst ablate": f"--only no-local --seeds 2 --jobs 1 {SMALL}",
}
"""Beginning of a command -> flags that make it quick, or find a free port."""

NOT_RUN = {
    ("README.md", "git clone"): "needs the repository's address; .ci/run runs make demo from a clone",
    ("README.md", "make test"): "runs this test; .ci/run runs it",
    ("docs/index.md", "git clone"): "needs the repository's address; .ci/run runs make demo from a clone",
    ("docs/data.md", "make setup"): "installs; .ci/run does so from a fresh clone",
    ("docs/data.md", "wget -r -N -c -np --user YOU --ask-password https://physionet.org/files/mimic-cxr-jpg"): "needs "
    "credentials",
    (
        "docs/data.md",
        "wget -r -N -c -np --user YOU --ask-password https://physionet.org/files/ms-cxr-t",
    ): "needs credentials",
    ("docs/data.md", "wget https://openi.nlm.nih.gov"): "needs a network",
    ("docs/data.md", "dask scheduler"): "needs a cluster; tests/cohort starts a local one",
    ("docs/pretrain.md", "torchrun --standalone"): "needs eight GPUs; tests/pretrain starts two processes on a CPU",
    ("docs/pretrain.md", "torchrun --nnodes 2"): "needs two machines",
    ("docs/pretrain.md", "#!/bin/bash"): "needs Slurm",
    ("docs/other-models.md", "import open_clip"): "needs open_clip_torch and the weights",
    (
        "docs/other-models.md",
        "import polars as pl\nimport torch\nfrom health",
    ): "needs hi-ml-multimodal and the weights",
    ("docs/app.md", "ssh"): "needs another computer",
    ("docs/app.md", "location / {"): "configures nginx, which the tests don't have",
}
"""Page and beginning of a block -> why it isn't run."""

COMMANDS = r"(\$ )?(\S*/)?(medst|python3?|pip|make|git|wget|curl|torchrun|accelerate|dask|mkdir|tar|cd|export) "
"""Beginnings of lines that are not allowed in blocks of plain text."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, language, first line's number and content."""

    page: str
    language: str
    line: int
    text: str

    @property
    def reason(self) -> str | None:
        """Why it isn't run; None if it is."""
        for (page, beginning), reason in NOT_RUN.items():
            if page == self.page and self.text.startswith(beginning):
                return reason
        return None


def blocks_of(page: str) -> list[Block]:
    found, opened = [], None
    for number, line in enumerate((ROOT / page).read_text().splitlines(), 1):
        if line.startswith("```"):
            if opened is None:
                opened = (line[3:].strip(), number + 1, list[str]())
            else:
                found.append(Block(page, opened[0], opened[1], "\n".join(opened[2])))
                opened = None
        elif opened is not None:
            opened[2].append(line)
    assert opened is None, f"{page}: a fence is not closed"
    return found


@dataclass
class Reader:
    """A user who reads the pages in order and types every block."""

    folder: Path
    read: list[str] = field(default_factory=list)
    typed: list[str] = field(default_factory=list)
    page_server: subprocess.Popen[str] | None = None

    def read_to(self, page: str) -> None:
        """Read all pages up to this one that are not read yet."""
        for earlier in PAGES[: PAGES.index(page) + 1]:
            if earlier not in self.read:
                self.read.append(earlier)
                self._read(earlier)

    def _read(self, page: str) -> None:
        names: dict[str, Any] = {}
        try:
            for block in blocks_of(page):
                if block.reason is not None or (block.language == "sh" and block.text in self.typed):
                    continue  # what two pages say alike is typed once
                self.typed.append(block.text)
                if block.language == "sh":
                    self._type(block)
                elif block.language == "python":
                    exec(compile(_padded(block), str(ROOT / page), "exec"), names)
        finally:
            self.leave_page()

    def _type(self, block: Block) -> None:
        """Run a block of medst commands in this process, which saves imports, and any other block in bash."""
        where = f"{block.page}:{block.line}"
        lines = _lines(block.text)
        commands = [shlex.split(line, comments=True) for line in lines]
        if not all(Path(command[0]).name == "medst" for command in commands):
            script = ["bash", "-euo", "pipefail", "-c", block.text]
            done = subprocess.run(script, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{where}: {block.text}\n{done.stdout}{done.stderr}"
            assert "event: error" not in done.stdout, f"{where}: {done.stdout}"
            return
        for line, command in zip(lines, commands, strict=True):
            arguments = command[1:] + shlex.split(SHRINK.get(f"medst {command[1]}", ""))
            if command[1] == "app":
                self._open_page(arguments, where)
                continue
            status: Any = 0
            try:
                main(arguments)
            except SystemExit as ended:
                status = ended.code
            assert not status, f"{where}: {line} (exit {status})"

    def _open_page(self, arguments: list[str], where: str) -> None:
        """Start the web page, fetch it once, and leave it running for the rest of the document."""
        self.leave_page()
        command = [sys.executable, "-m", "medst", *arguments]
        self.page_server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.page_server.stdout is not None
        for said in self.page_server.stdout:
            if found := re.search(r"(http://[^/\s]+)/?(?:\?token=(\S+))?", said):
                break
        else:
            raise AssertionError(f"{where}: {self.page_server.communicate()[1]}")
        os.environ["PAGE"], os.environ["MEDST_TOKEN"] = found[1], found[2] or ""
        if len(arguments) > 2 and not any(word.startswith("--") for word in arguments[1:3]):
            pairs = open_cohort(Path(arguments[2])).pairs
            assert pairs is not None
            os.environ["PATIENT"] = pairs["patient_id"][0]
        with urllib.request.urlopen(found[0], timeout=60) as answer:
            assert answer.status == 200

    def leave_page(self) -> None:
        """Ctrl-C."""
        if self.page_server is not None:
            self.page_server.send_signal(signal.SIGINT)
            self.page_server.communicate(timeout=60)
            self.page_server = None
            for name in ("PAGE", "MEDST_TOKEN", "PATIENT"):
                os.environ.pop(name, None)


def _lines(text: str) -> list[str]:
    """The commands of a block; a backslash at the end of a line continues it on the next."""
    whole = re.sub(r"\\\n\s*", "", text)
    return [line for line in whole.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _padded(block: Block) -> str:
    return "\n" * (block.line - 1) + block.text


@pytest.fixture(scope="module")
def reader(
    phantom_cohort: Path,
    small_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Reader]:
    """A reader in a folder with data sets as downloaded, a finished demo and own pictures."""
    folder = tmp_path_factory.mktemp("user")
    mimic = folder / "trees" / "mimic"
    # Enough patients in the test split to measure what changed, and a batch of others to learn from.
    write_phantom(mimic, patients=48, seed=3, workers=2, test_share=0.8)
    for name, patients in (("rsna", 40), ("covidx", 40), ("chexpert-plus", 12), ("open-i", 12)):
        write_tree(name, folder / "trees" / name, patients=patients, seed=3, workers=2)
    links = {
        "physionet.org/files/mimic-cxr-jpg/2.1.0": mimic / "mimic-cxr-jpg",
        "physionet.org/files/ms-cxr-t/1.0.0": mimic / "ms-cxr-t",
        "rsna-pneumonia-detection-challenge": folder / "trees" / "rsna",
        "COVIDx": folder / "trees" / "covidx",
        "chexpert-plus": folder / "trees" / "chexpert-plus",
        "medst-demo/cohort": phantom_cohort,
        "medst-demo/run/last": small_model,
        "examples": ROOT / "examples",
        "benchmarks": ROOT / "benchmarks",
        ".venv": Path(sys.prefix),
    }
    for name, target in links.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)
    for name in ("reports", "png"):
        with tarfile.open(folder / f"NLMCXR_{name}.tgz", "w:gz") as archive:
            archive.add(folder / "trees" / "open-i" / f"NLMCXR_{name}", ".")
    _own_pictures(folder, mimic)
    patch = pytest.MonkeyPatch()
    add = offline_hub(folder / "hf-home", patch)
    add("emilyalsentzer/Bio_ClinicalBERT", bert(folder / "bert"))
    add("facebook/deit-base-patch16-224", deit(folder / "deit"))
    add("microsoft/rad-dino", dinov2(folder / "dinov2"))
    patch.chdir(folder)
    patch.setenv("PATH", f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}")
    for name in ("PAGE", "MEDST_TOKEN", "PATIENT"):  # what a page that is opened sets
        patch.delenv(name, raising=False)
    yield Reader(folder)
    patch.undo()


def _own_pictures(folder: Path, mimic: Path) -> None:
    jpgs = sorted((mimic / "mimic-cxr-jpg" / "files").rglob("*.jpg"))
    dicoms = sorted((folder / "trees" / "rsna" / "stage_2_train_images").glob("*.dcm"))
    for number, name in enumerate(("my.jpg", "frontal.jpg")):
        shutil.copy(jpgs[number], folder / name)
    names = ("lateral.dcm", "january.dcm", "march.dcm", "2150-01.dcm", "2150-03.dcm", "2150-03-lateral.dcm")
    for file, name in zip(dicoms, names, strict=False):
        shutil.copy(file, folder / name)
    (folder / "images").mkdir()
    table = next(block.text for block in blocks_of("docs/data.md") if block.text.startswith("patient,study,"))
    (folder / "hospital.csv").write_text(table + "\n")
    for row in pl.read_csv(table.encode()).iter_rows(named=True):
        for number, view in enumerate(("frontal", "lateral")):
            if row[view]:
                shutil.copy(jpgs[number], folder / row[view])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_work(reader: Reader, page: str) -> None:
    reader.read_to(page)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_named_with_a_reason(page: str) -> None:
    for block in blocks_of(page):
        known = block.language in ("sh", "python", "text") or block.reason
        assert known, f"{page}:{block.line}: say what language the block is in, or why it is not run"
        if block.language == "text":
            for line in block.text.splitlines():
                assert not re.match(COMMANDS, line), f"{page}:{block.line}: {line} is a command; give it as sh"
        if block.language == "python" and block.reason is None:
            ast.parse(block.text)
        if block.language == "sh":
            checked = subprocess.run(["bash", "-n", "-c", block.text], capture_output=True, text=True, check=False)
            assert checked.returncode == 0, f"{page}:{block.line}: {checked.stderr}"
    outside = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"^\n    \S", outside, re.MULTILINE), f"{page}: put code between fences"


def test_every_reason_belongs_to_a_block() -> None:
    for page, beginning in NOT_RUN:
        assert any(block.text.startswith(beginning) for block in blocks_of(page)), (page, beginning)


def test_every_flag_that_a_page_mentions_exists(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        with pytest.raises(SystemExit):
            main([verb, *(["tiny"] if verb in ("pretrain", "ablate") else []), "--help"])
    known = set(re.findall(r"--[\w.-]+", capsys.readouterr().out))
    others = {
        "--guarded",
        "--open-i",
        "--user",
        "--ask-password",
        "--standalone",
        "--nproc-per-node",
        "--nnodes",
        "--rdzv-backend",
        "--version",
    }
    for page in PAGES:
        spans = " ".join(re.findall(r"`([^`\n]+)`", (ROOT / page).read_text()))
        for flag in re.findall(r"(?<![\w-])--[a-z][\w.-]*", spans):
            assert flag in known | others, f"{page}: {flag}"


def test_only_named_commands_are_shrunk() -> None:
    typed = [
        line for page in PAGES for block in blocks_of(page) if block.language == "sh" for line in _lines(block.text)
    ]
    for beginning in SHRINK:
        assert any(beginning in line for line in typed), beginning
