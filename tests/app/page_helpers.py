"""Pages in processes of their own."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Page:
    """A page in a process of its own, as a user starts it; gradio leaves sockets open when it ends inside of one."""

    process: subprocess.Popen[str]
    opened: str
    """The address as it is printed, with the token."""
    temporary: Path

    @property
    def address(self) -> str:
        return self.opened.partition("?")[0]

    @property
    def token(self) -> str:
        return self.opened.partition("?token=")[2]

    @property
    def port(self) -> int:
        return int(self.address.rstrip("/").rpartition(":")[2])

    def ask(
        self, path: str, body: bytes | None = None, token: bool = True, method: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers and text of an answer; underscores in the headers' names stand for hyphens."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token and self.token:
            sent = {"Authorization": f"token {self.token}"} | sent
        request = urllib.request.Request(f"{self.address}{path}", body, sent, method=method)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read().decode()

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
