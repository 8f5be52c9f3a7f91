"""Start the page: for this computer alone unless asked otherwise, with nothing of it going anywhere else."""

import errno
import ipaddress
import logging
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import psutil
from filelock import FileLock, Timeout

from medst.errors import MedstError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from medst.app.guard import Guard
    from medst.app.studies import Desk

LAST_DEMO = Path("medst-demo")
PRIVATE = "medst-app-"
"""How the folders of visitors' files begin, before the number of their process."""
LOCK = ".lock"
"""Held in such a folder for as long as its page is up."""
UPLOAD = 64
"""Largest file that is taken, in MB."""
TOGETHER = 8
"""How many such files visitors may have on the disk at once."""
KEPT = 3600
"""Seconds after which a visitor's own pictures are forgotten."""
VISITORS = 64
"""Whose pictures are kept in memory; of more, those who were idle longest are forgotten."""
FIRST_PORT, PORTS = 7860, 100
TOKEN = "MEDST_TOKEN"
"""Environment variable with a token to use instead of a random one."""


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
    upload: int = UPLOAD, names: Sequence[str] = (), token: str | None = None,
) -> Iterator[str]:  # fmt: skip
    """The page, up for as long as the context lasts.

    Args:
        model: as `medst.load` takes it.
        cohort: with pairs, or None.
        embeddings: of both, written by `medst embed`, or None.
        host: address to listen at.
        port: 0 takes a free one from 7860 on.
        upload: largest file that is taken, in MB.
        names: host names to answer to, beside those of `host`.
        token: what every request must bring, see `new_token`; None asks for none.

    Yields:
        The page's address, with the token in it.

    Raises:
        MedstError: no such model or cohort, the host is not an address, the port is taken, or the upload is not a size.
    """
    if not 1 <= upload <= 4096:
        raise MedstError(f"--upload {upload} is not a size; give 1 to 4096 MB.")
    admitted = _names(host, names)
    listener = _listen(host, port)
    with listener, _private_folder() as private:
        place = f"[{host}]" if ":" in host else host
        address = f"http://{place}:{listener.getsockname()[1]}/"
        before = {name: os.environ.get(name) for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED")}
        os.environ |= {"GRADIO_TEMP_DIR": str(private), "GRADIO_ANALYTICS_ENABLED": "False"}
        try:
            app, page = _app(_desk(model, cohort, embeddings), private, upload)
            from medst.app.guard import Guard

            guard = Guard(
                app,
                names=admitted,
                token=token,
                cookie=f"medst-{listener.getsockname()[1]}",  # cookies don't know ports, and there may be several pages
                upload=upload * 2**20,
                uploads=TOGETHER * upload * 2**20,
                used=lambda: used(private),
                tidy=lambda: remove_unfinished(private),
            )
            with _running(guard, page, listener):
                yield address if token is None else f"{address}?token={token}"
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def new_token() -> str:
    """The token in MEDST_TOKEN, or a random one.

    Raises:
        MedstError: that in MEDST_TOKEN is short or has characters that an address can't have.
    """
    given = os.environ.get(TOKEN)
    if given is None:
        return secrets.token_urlsafe(32)
    if not re.fullmatch(r"[\w-]{16,}", given, re.ASCII):
        raise MedstError(f"the token in {TOKEN} needs at least 16 characters, each a letter, a digit, - or _.")
    return given


def _app(desk: "Desk", private: Path, upload: int) -> "tuple[FastAPI, Any]":
    try:
        import gradio as gr
        from fastapi import FastAPI
    except ImportError as error:
        raise MedstError('the web page needs a package that is missing: pip install "medst[app]".') from error
    from medst.app.page import build_page, quiet
    from medst.app.style import css, theme

    page: Any = build_page(desk, private)
    page.process_api = quiet(page.process_api)
    page.queue(default_concurrency_limit=2, max_size=64)
    page.state_session_capacity = VISITORS
    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        page,
        "/",
        footer_links=["api"],
        run_history=False,  # it would keep pictures in the browser
        allowed_paths=[],
        show_error=False,
        max_file_size=upload * gr.FileSize.MB,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        css=css(),
    )
    page.server_app = next(route.app for route in app.routes if isinstance(getattr(route, "app", None), gr.routes.App))
    page.has_launched = True  # or else gradio takes a path of this computer for an upload
    return app, page


@contextmanager
def _running(app: "Guard", page: Any, listener: socket.socket) -> Iterator[None]:
    import uvicorn

    config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="on", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise MedstError("the page could not be started.")
            time.sleep(0.01)
        yield
    finally:
        # Open tabs hold a connection for as long as they are open: end it, and don't log that it was ended.
        page.server_app.stop_event.set()
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        page.close(verbose=False)
        server.should_exit = True
        thread.join(10)


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise MedstError(f"--port {port} does not exist; give 1 to 65535, or 0 for a free one.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in [port] if port else range(FIRST_PORT, FIRST_PORT + PORTS):
        try:
            return socket.create_server((host, number), family=family)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise MedstError(f"{host}:{number} can't be listened at ({error.strerror}).") from None
    which = f"port {port} is" if port else f"ports {FIRST_PORT} to {FIRST_PORT + PORTS - 1} are"
    raise MedstError(f"{which} taken by other programs; give another --port.")


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A folder for visitors' files that only its owner can read; gone when the context ends."""
    remove_left_behind()
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{PRIVATE}{os.getpid()}-"))
        lock = FileLock(folder / LOCK, blocking=False)
        try:
            lock.acquire()
            break
        except (Timeout, FileNotFoundError):  # another page, at its start, took it for one left behind
            continue
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def remove_left_behind() -> None:
    """Visitors' files of pages that were killed before they could remove them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PRIVATE}*-*"):
        with suppress(OSError, Timeout):
            if (folder / LOCK).exists():  # held where a page is up: a process's number may be another one's by now
                with FileLock(folder / LOCK, blocking=False):
                    shutil.rmtree(folder, ignore_errors=True)
            elif not _is_up(folder.name.removeprefix(PRIVATE).partition("-")[0]):
                shutil.rmtree(folder, ignore_errors=True)


def _is_up(process: str) -> bool:
    return not process.isdigit() or psutil.pid_exists(int(process))


def used(folder: Path) -> int:
    """Bytes of visitors' files; those that nobody asked for within an hour, and what broken uploads left, go first."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(OSError):
            status = file.lstat()
            if not stat.S_ISREG(status.st_mode) or file.name == LOCK:
                continue
            if time.time() - status.st_mtime > KEPT:
                file.unlink()
            else:
                total += status.st_size
    return total


def remove_unfinished(folder: Path) -> None:
    """Remove files that gradio was receiving; it moves complete ones to folders of their own."""
    for file in folder.glob("tmp*"):
        with suppress(OSError):
            file.unlink()


def _desk(model: Path | str, cohort: Path | None, embeddings: Path | None) -> "Desk":
    from medst.app.studies import Desk
    from medst.cohort.store import open_cohort
    from medst.use import load

    desk = Desk(load(model), None if cohort is None else open_cohort(cohort), embeddings)
    if desk.patients:
        desk.visit(desk.patients[0][1])  # so that the page opens at once
    return desk


def listening(host: str) -> bool:
    """Whether others than this computer could reach the page at that address.

    Raises:
        MedstError: it is not an address.
    """
    try:
        return not ipaddress.ip_address("127.0.0.1" if host == "localhost" else host).is_loopback
    except ValueError as error:
        raise MedstError(f"'{host}' is not an address to listen at; give one like 127.0.0.1.") from error


def _names(host: str, more: Sequence[str]) -> frozenset[str]:
    """Host names that a page at this address answers to."""
    found = {host, *more}
    if not listening(host):
        found |= {"localhost", "127.0.0.1", "::1"}
    elif ipaddress.ip_address(host).is_unspecified:  # all addresses of this computer
        found |= {"localhost", "127.0.0.1", "::1", socket.gethostname()}
        found |= {each.address.partition("%")[0] for card in psutil.net_if_addrs().values() for each in card}
    return frozenset(name.strip("[]").lower() for name in found)
