"""Admit or refuse requests before gradio sees them, by host name, origin and token.

A web site can make a browser send requests here, through DNS rebinding under its own name. So can another program on this
computer that serves pages on another port. Checking host name, origin and token stops both.
"""

import asyncio
import logging
import secrets
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ALLOWED_ROUTES = {
    "", "assets", "static", "svelte", "config", "theme.css", "favicon.ico", "manifest.json", "gradio_api/info",
    "gradio_api/call", "gradio_api/run", "gradio_api/queue", "gradio_api/cancel", "gradio_api/reset",
    "gradio_api/heartbeat", "gradio_api/upload", "gradio_api/upload_progress", "gradio_api/startup-events",
    "gradio_api/app_id", "gradio_api/theme.css",
}  # fmt: skip
"""The routes that the page and its API use. Gradio has others, which read files or change its source."""
UPLOAD_PATH = "/gradio_api/upload"
MOST_BODY = 2**20
"""Bytes of a request that is not an upload."""
FORM_OVERHEAD = 2**16
"""Bytes that a form adds to the file in it."""
POLICY = (
    # Gradio compiles HTML components in the browser, hence `unsafe-eval`; a script written into the page does not run.
    "default-src 'self'; script-src 'self' 'unsafe-eval' 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-src 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
# Not a redirect: after a click on another site's link, a browser sends no SameSite=Strict cookie with a redirect.
RELOAD_PAGE = '<!doctype html><title>medst</title><meta http-equiv="refresh" content="0; url=./">'


@dataclass
class Guard:
    """ASGI middleware in front of the page.

    Attributes:
        app: the page.
        names: host names that it answers to, in lower case.
        token: every request must carry it; None asks for none.
        cookie: name of the cookie that keeps the token.
        most_upload: bytes of one file.
        most_uploads: bytes of all visitors' files together.
        bytes_used: returns the bytes of visitors' files now.
        remove_unfinished: removes the remains of broken uploads; called when no upload is under way.
        timeout: seconds without data after which an incomplete request is dropped.
    """

    app: ASGIApp
    names: frozenset[str]
    token: str | None
    cookie: str
    most_upload: int
    most_uploads: int
    bytes_used: Callable[[], int]
    remove_unfinished: Callable[[], None] = lambda: None
    timeout: float = 60.0
    _receiving: int = field(default=0, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page uses no websockets
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        request, route = Request(scope), _route(scope["path"])
        is_page = request.method == "GET" and scope["path"] == "/" and "text/html" in request.headers.get("accept", "")
        send = _with_headers(send, scope["path"], "no-cache" if route in ("assets", "static") else "no-store")
        if refused := self._reason_to_refuse(request):
            await PlainTextResponse(f"medst: {refused}\n", 403)(scope, receive, send)
        elif is_page and any(map(self._is_token, request.query_params.getlist("token"))):
            response = HTMLResponse(RELOAD_PAGE)
            secure = scope["scheme"] == "https"
            response.set_cookie(self.cookie, self.token or "", httponly=True, samesite="strict", secure=secure)
            await response(scope, receive, send)
        elif route not in ALLOWED_ROUTES:
            await PlainTextResponse("medst: not found.\n", 404)(scope, receive, send)
        else:
            await self._forward(request, receive, send)

    def _reason_to_refuse(self, request: Request) -> str:
        """The reason to refuse a request; empty if there is none."""
        headers = request.headers
        hosts = [headers.get("host", "")]
        hosts += [name.strip() for value in headers.getlist("x-forwarded-host") for name in value.split(",")]
        for host in hosts:
            if _host_name(host) not in self.names:
                return f"this page is not served under the name {_host_name(host)[:80]!r}; --allow-host adds a name."
        for origin in headers.getlist("origin"):
            if not any(_is_same_origin(origin, host) for host in hosts):
                return "requests from other origins are refused."
        opens_page = request.method == "GET" and request.scope["path"] == "/"
        is_link = opens_page and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not is_link:
            return "requests from other sites are refused."
        if self.token is None:
            return ""
        kind, _, given = headers.get("authorization", "").partition(" ")
        tokens = [given.strip()] if kind.lower() in ("token", "bearer") else []
        tokens += [*request.query_params.getlist("token"), request.cookies.get(self.cookie, "")]
        if not any(map(self._is_token, tokens)):
            return "the token is missing or wrong; open the complete address that `medst app` printed."
        return ""

    def _is_token(self, given: str) -> bool:
        return self.token is not None and secrets.compare_digest(given.encode(), self.token.encode())

    async def _forward(self, request: Request, receive: Receive, send: Send) -> None:
        scope, headers = request.scope, request.headers
        is_upload = scope["path"] == UPLOAD_PATH
        most, length = (self.most_upload if is_upload else MOST_BODY), int(headers.get("content-length", 0))
        receive = _with_timeout(receive, self.timeout)
        refused = ""
        if "transfer-encoding" in headers:
            refused = "send the request with its Content-Length."
        elif length > most + FORM_OVERHEAD:
            refused = f"the request has {length / 2**20:.1f} MB; at most {most / 2**20:.0f} MB are allowed."
        elif is_upload and self.bytes_used() + self._receiving + length > self.most_uploads:
            refused = f"the space for visitors' files ({self.most_uploads / 2**20:.0f} MB) is full; try again later."
        if refused:
            while (await receive()).get("more_body"):  # a browser reads the response only after sending everything
                pass
            await PlainTextResponse(f"medst: {refused}\n", 413)(scope, receive, send)
            return
        # Without compression, so that the nonce can be written into the page.
        dropped = (b"x-gradio-server", b"accept-encoding") if scope["path"] == "/" else (b"x-gradio-server",)
        scope = {**scope, "headers": [(name, value) for name, value in scope["headers"] if name not in dropped]}
        self._receiving += length if is_upload else 0
        try:
            await _answer(self.app, scope, receive, send)
        finally:
            self._receiving -= length if is_upload else 0
            if is_upload and not self._receiving:
                self.remove_unfinished()


def _with_timeout(receive: Receive, timeout: float) -> Receive:
    """Treat a body that stalls as a lost connection."""
    complete = False

    async def receive_in_time() -> Message:
        nonlocal complete
        if complete:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), timeout)
        except TimeoutError:
            message = {"type": "http.disconnect"}
        complete = not message.get("more_body")
        return message

    return receive_in_time


async def _answer(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Forward to the page; an exception becomes one line in the log and one sentence for the visitor."""
    held: list[Message] = []  # a response with status 500, which an exception may follow
    started = False

    async def watched(message: Message) -> None:
        nonlocal started
        if held or message.get("status") == 500:
            held.append(message)
            return
        started = True
        await send(message)

    try:
        await app(scope, receive, watched)
    except Exception as error:
        log_failure(f"{scope['method']} {scope['path'][:80]!r}", error)
        if not started:
            status, text = 500, "the page failed; its log says why."
            if isinstance(error, (ValueError, LookupError, OSError)) or "gradio" in type(error).__module__:
                status, text = 400, "the page can't make sense of this request."
            await PlainTextResponse(f"medst: {text}\n", status)(scope, receive, send)
        return
    for message in held:
        await send(message)


def log_failure(name: str, error: Exception) -> None:
    """Log a failure in one line, without a traceback."""
    [place] = traceback.extract_tb(error.__traceback__, limit=-1)
    failed = f"{type(error).__name__}: {' '.join(str(error).split())[:200]!r}, at {place.name}:{place.lineno}"
    logging.getLogger("medst.app").warning("medst: %s failed (%s)", name, failed)


def _route(path: str) -> str:
    """The first part of the path; below gradio's prefix, the first two."""
    parts = path.split("/")[1:]
    if not parts or (parts[0] == "" and path != "/"):
        return "?"
    return "/".join(parts[:2]) if parts[0] == "gradio_api" else parts[0]


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_same_origin(origin: str, host: str) -> bool:
    """Whether this origin matches this value of Host."""
    scheme, _, place = origin.lower().partition("://")
    default = {"http": ":80", "https": ":443"}.get(scheme)
    return default is not None and place.removesuffix(default) == host.lower().removesuffix(default)


def _with_headers(send: Send, path: str, cache: str) -> Send:
    """Add the headers to a response, and the nonce to the scripts of gradio's own page; data in it contains no `<`."""
    nonce = secrets.token_urlsafe(16)
    start: Message = {}
    page = b""

    async def send_with_headers(message: Message) -> None:
        nonlocal start, page
        if message["type"] == "http.response.start":
            start = message
            headers = MutableHeaders(scope=start)
            headers.update(HEADERS | {"Content-Security-Policy": POLICY.format(nonce=nonce)})
            headers.setdefault("Cache-Control", cache)
        if path != "/":
            await send(message)
            return
        page += message.get("body", b"")
        if message["type"] == "http.response.body" and not message.get("more_body"):
            page = page.replace(b"<script", f'<script nonce="{nonce}"'.encode())
            MutableHeaders(scope=start)["content-length"] = str(len(page))
            await send(start)
            await send({"type": "http.response.body", "body": page})

    return send_with_headers
