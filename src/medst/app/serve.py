"""Start the page: on this computer alone, with nothing of it going anywhere else."""

import ipaddress
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import psutil

from medst.errors import MedstError

if TYPE_CHECKING:
    from medst.app.visits import Desk

LAST_DEMO = Path("medst-demo")
PRIVATE = "medst-app-"
"""How the folders of visitors' files begin, before the number of their process."""
UPLOAD = 64
"""Largest file that is taken, in MB."""


def last_demo(folder: Path = LAST_DEMO) -> tuple[Path, Path]:
    """Model and cohort of the demo in a folder.

    Raises:
        MedstError: there is no finished one.
    """
    model, cohort = folder / "run" / "last", folder / "cohort"
    if not (model / "model.safetensors").is_file() or not (cohort / "cohort.json").is_file():
        raise MedstError(
            f"no finished demo in {folder}; run `medst demo` first, or give a model: medst app MODEL COHORT."
        )
    return model, cohort


@contextmanager
def serving(
    model: Path | str, cohort: Path | None, *, embeddings: Path | None = None, host: str = "127.0.0.1", port: int = 0,
    upload: int = UPLOAD,
) -> Iterator[str]:  # fmt: skip
    """The page, up for as long as the context lasts.

    Args:
        model: as `medst.load` takes it.
        cohort: with pairs, or None.
        embeddings: of both, written by `medst embed`, or None.
        host: address to listen at.
        port: 0 takes a free one from 7860 on.
        upload: largest file that is taken, in MB.

    Yields:
        The page's address.

    Raises:
        MedstError: no such model or cohort, the host is no address, or the port is taken.
    """
    listening(host)
    remove_left_behind()
    private = tempfile.mkdtemp(prefix=f"{PRIVATE}{os.getpid()}-")  # for its owner alone
    before = {name: os.environ.get(name) for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED")}
    os.environ |= {"GRADIO_TEMP_DIR": private, "GRADIO_ANALYTICS_ENABLED": "False"}
    page = None
    try:
        desk = _desk(model, cohort, embeddings)
        gr = _gradio()
        from medst.app.page import build_page
        from medst.app.style import HEAD, css, theme

        page = build_page(desk)
        page.queue(default_concurrency_limit=2, max_size=64)
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port or None,
                share=False,
                prevent_thread_lock=True,
                quiet=True,
                max_file_size=upload * gr.FileSize.MB,
                allowed_paths=[],
                footer_links=["api"],
                pwa=False,
                ssr_mode=False,
                mcp_server=False,
                enable_monitoring=False,
                theme=theme(),
                css=css(),
                head=HEAD,
            )
        except OSError as error:
            raise MedstError(
                f"{host}:{port or 'from 7860 on'} can't be listened at ({error}); give another --port."
            ) from error
        yield address
    finally:
        if page is not None:
            page.close(verbose=False)
        shutil.rmtree(private, ignore_errors=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def remove_left_behind() -> None:
    """Visitors' files of pages that were killed before they could remove them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PRIVATE}*-*"):
        process = folder.name.removeprefix(PRIVATE).partition("-")[0]
        if process.isdigit() and not psutil.pid_exists(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def _gradio() -> ModuleType:
    try:
        import gradio
    except ImportError as error:
        raise MedstError('the web page needs a package that is missing: pip install "medst[app]".') from error
    return gradio


def _desk(model: Path | str, cohort: Path | None, embeddings: Path | None) -> "Desk":
    from medst.app.visits import Desk
    from medst.cohort.store import open_cohort
    from medst.use import load

    desk = Desk(load(model), None if cohort is None else open_cohort(cohort), embeddings)
    if desk.patients:
        desk.visit(desk.patients[0][1])  # so that the page opens at once
    return desk


def listening(host: str) -> bool:
    """Whether others than this computer could reach the page at that address.

    Raises:
        MedstError: it is no address.
    """
    try:
        return not ipaddress.ip_address("127.0.0.1" if host == "localhost" else host).is_loopback
    except ValueError as error:
        raise MedstError(f"'{host}' is no address to listen at; give one like 127.0.0.1.") from error
