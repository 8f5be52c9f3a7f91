"""Pages in processes of their own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Page:
    """A page in a process of its own, as a user starts it; gradio leaves sockets open when it ends inside of one."""

    process: subprocess.Popen[str]
    address: str
    temporary: Path

    @property
    def private(self) -> list[Path]:
        """Folders for visitors' files."""
        return sorted(self.temporary.glob("medst-app-*"))


@contextmanager
def opened_page(temporary: Path, *arguments: str) -> Iterator[Page]:
    """`medst app` until the context ends; its output is in `temporary`/said.txt."""
    temporary.mkdir(parents=True, exist_ok=True)
    with (temporary / "said.txt").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "medst", "app", *arguments],
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
        assert process.stdout is not None
        try:
            line = ""
            while not line.startswith("http"):
                line = process.stdout.readline()
                assert line, (temporary / "said.txt").read_text()
            yield Page(process, line.split()[0], temporary)
        finally:
            process.terminate()
            process.wait(30)
            process.stdout.close()
