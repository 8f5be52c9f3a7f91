"""Start the page, for this computer alone unless asked otherwise. Nothing is sent elsewhere."""

import errno
import ipaddress
import logging
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import psutil

from medst.app.private_files import bytes_used, private_folder, remove_unfinished
from medst.errors import MedstError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from medst.app.guard import Guard
    from medst.app.studies import Backend

LAST_DEMO = Path("medst-demo")
MOST_UPLOAD = 64
"""MB of one file, unless the caller allows more."""
MOST_UPLOADS = 8
"""Files of that size that visitors may have on the disk at once."""
MOST_VISITORS = 64
"""Visitors whose pictures are kept in memory; with more, those who were idle longest are forgotten."""
FIRST_PORT, PORTS = 7860, 100
TOKEN = "MEDST_TOKEN"
"""Environment variable with a token to use instead of a random one."""


def last_demo(folder: Path = LAST_DEMO) -> tuple[Path, Path]:
    """The model and the cohort of the demo in a folder.

    Raises:
        MedstError: there is no finished demo.
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
    upload: int = MOST_UPLOAD, names: Sequence[str] = (), token: str | None = None,
) -> Iterator[str]:  # fmt: skip
    """Serve the page until the context ends.

    Args:
        model: a model's folder, as for `medst.load`.
        cohort: with pairs, or None.
        embeddings: folder that `medst embed` wrote for both, or None.
        host: address to listen at.
        port: 0 takes a free one from 7860 on.
        upload: largest file that a visitor may send, in MB.
        names: host names to answer to, besides those of `host`.
        token: what every request must carry, see `new_token`; None asks for none.

    Yields:
        The page's address, with the token in it.

    Raises:
        MedstError: no such model or cohort, the host is not an address, the port is in use, or the upload is not a size.
    """
    if not 1 <= upload <= 4096:
        raise MedstError(f"--upload {upload} is not a size; give 1 to 4096 MB.")
    allowed_names = _host_names(host, names)
    listener = _listen(host, port)
    with listener, private_folder() as private:
        place = f"[{host}]" if ":" in host else host
        address = f"http://{place}:{listener.getsockname()[1]}/"
        settings = {"GRADIO_TEMP_DIR": str(private), "GRADIO_ANALYTICS_ENABLED": "False"}
        before = {name: os.environ[name] for name in settings if name in os.environ}
        os.environ |= settings
        try:
            app, page = _app(_backend(model, cohort, embeddings), private, upload)
            from medst.app.guard import Guard

            guard = Guard(
                app,
                names=allowed_names,
                token=token,
                cookie=f"medst-{listener.getsockname()[1]}",  # cookies don't know ports, and there may be several pages
                most_upload=upload * 2**20,
                most_uploads=MOST_UPLOADS * upload * 2**20,
                bytes_used=lambda: bytes_used(private),
                remove_unfinished=lambda: remove_unfinished(private),
            )
            with _running(guard, page, listener):
                yield address if token is None else f"{address}?token={token}"
        finally:
            for name in settings:
                os.environ.pop(name, None)
            os.environ |= before


def new_token() -> str:
    """The token in MEDST_TOKEN, or a random one.

    Raises:
        MedstError: the token in MEDST_TOKEN is too short, or has characters that an address can't have.
    """
    given = os.environ.get(TOKEN)
    if given is None:
        return secrets.token_urlsafe(32)
    if not re.fullmatch(r"[\w-]{16,}", given, re.ASCII):
        raise MedstError(f"the token in {TOKEN} needs at least 16 characters, each a letter, a digit, - or _.")
    return given


def _app(backend: "Backend", private: Path, upload: int) -> "tuple[FastAPI, Any]":
    try:
        import gradio as gr
        from fastapi import FastAPI
    except ImportError as error:
        raise MedstError('the web page needs a package that is missing: pip install "medst[app]".') from error
    from medst.app.page import build_page, css, theme

    page: Any = build_page(backend, private)
    page.queue(default_concurrency_limit=2, max_size=64)
    page.state_session_capacity = MOST_VISITORS
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
    page.has_launched = True  # otherwise gradio accepts a path of this computer as an upload
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
        # Open tabs hold a connection: end it, and don't log that.
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
                raise MedstError(f"can't listen at {host}:{number} ({error.strerror}).") from None
    which = f"port {port} is" if port else f"ports {FIRST_PORT} to {FIRST_PORT + PORTS - 1} are"
    raise MedstError(f"{which} in use by other programs; give another --port.")


def _backend(model: Path | str, cohort: Path | None, embeddings: Path | None) -> "Backend":
    from medst.app.studies import Backend
    from medst.cohort.store import open_cohort
    from medst.use import load

    backend = Backend(load(model), None if cohort is None else open_cohort(cohort), embeddings)
    if backend.patients:
        backend.open_patient(backend.patients[0][1])  # so that the page opens immediately
    return backend


def is_public(host: str) -> bool:
    """Whether other computers could reach a page at that address.

    Raises:
        MedstError: `host` is not an address.
    """
    try:
        return not ipaddress.ip_address("127.0.0.1" if host == "localhost" else host).is_loopback
    except ValueError as error:
        raise MedstError(f"'{host}' is not an address to listen at; give one like 127.0.0.1.") from error


def _host_names(host: str, more: Sequence[str]) -> frozenset[str]:
    """The host names that a page at this address answers to."""
    found = {host, *more}
    if not is_public(host):
        found |= {"localhost", "127.0.0.1", "::1"}
    elif ipaddress.ip_address(host).is_unspecified:  # all addresses of this computer
        found |= {"localhost", "127.0.0.1", "::1", socket.gethostname()}
        found |= {each.address.partition("%")[0] for card in psutil.net_if_addrs().values() for each in card}
    return frozenset(name.strip("[]").lower() for name in found)
