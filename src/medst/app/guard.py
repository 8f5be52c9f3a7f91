"""Who may talk to the page, decided before gradio sees a request: the right host name, the page's own origin, the token.

A web site can make a browser send requests here, through DNS rebinding under a name of its own, and so can another program
on this computer that serves pages on another port. Neither gets past the host name, the origin and the token.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ROUTES = {
    "", "assets", "static", "svelte", "config", "theme.css", "favicon.ico", "manifest.json", "gradio_api/info",
    "gradio_api/call", "gradio_api/run", "gradio_api/queue", "gradio_api/cancel", "gradio_api/reset",
    "gradio_api/heartbeat", "gradio_api/upload", "gradio_api/upload_progress", "gradio_api/startup-events",
    "gradio_api/app_id", "gradio_api/theme.css",
}  # fmt: skip
"""What the page and its API use; gradio has more, among them routes that read files and that change its source."""
UPLOADS = "/gradio_api/upload"
BODY = 2**20
"""Bytes of any request that is not an upload."""
FORM = 2**16
"""Bytes that a form adds to the file in it."""
POLICY = (
    # gradio compiles its HTML components in the browser, hence `unsafe-eval`; a script written into the page does not run.
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
# A redirect would not do: after a click on another site's link, a browser sends no SameSite=Strict cookie along with it.
ENTER = '<!doctype html><title>medst</title><meta http-equiv="refresh" content="0; url=./">'


@dataclass
class Guard:
    """ASGI middleware in front of the page.

    Attributes:
        app: the page.
        names: host names that it answers to, in lower case.
        token: what a request must bring; None asks for none.
        cookie: name of the cookie that keeps the token.
        upload: bytes of one file.
        uploads: bytes of all visitors' files together.
        used: says how many bytes visitors' files have now.
        tidy: removes what refused uploads left; called when no upload is under way.
        patience: seconds without data after which a request that is not complete is given up.
    """

    app: ASGIApp
    names: frozenset[str]
    token: str | None
    cookie: str
    upload: int
    uploads: int
    used: Callable[[], int]
    tidy: Callable[[], None] = lambda: None
    patience: float = 60.0
    _receiving: int = field(default=0, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page uses no websockets
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        headers, nonce = Headers(scope=scope), secrets.token_urlsafe(16)
        send = _hardened(send, nonce, is_fixed=_route(scope["path"]) in ("assets", "static"))
        if refused := self._refused(scope, headers):
            await PlainTextResponse(f"medst: {refused}\n", 403)(scope, receive, send)
        elif self._enters(scope, headers):
            await self._entered(scope)(scope, receive, send)
        elif _route(scope["path"]) not in ROUTES:
            await PlainTextResponse("medst: the page has nothing of this name.\n", 404)(scope, receive, send)
        else:
            await self._pass_on(scope, headers, receive, send, nonce)

    def _refused(self, scope: Scope, headers: Headers) -> str:
        """Why a request is refused; empty where it isn't."""
        hosts = [headers.get("host", "")]
        hosts += [name.strip() for value in headers.getlist("x-forwarded-host") for name in value.split(",")]
        for host in hosts:
            if _name(host) not in self.names:
                return f"this page does not answer to the name {_name(host)[:80]!r}; --allow-host adds a name."
        for origin in headers.getlist("origin"):
            if not any(_same(origin, host) for host in hosts):
                return "requests from other origins are refused."
        opens = scope["method"] == "GET" and scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not opens:
            return "requests from other sites are refused."
        if self.token is not None and not any(self._is_token(given) for given in self._tokens(scope, headers)):
            return "the token is missing or wrong; open the whole address that `medst app` printed."
        return ""

    def _tokens(self, scope: Scope, headers: Headers) -> list[str]:
        kind, _, given = headers.get("authorization", "").partition(" ")
        found = [given.strip()] if kind.lower() in ("token", "bearer") else []
        found += _query(scope)
        for value in headers.getlist("cookie"):
            found += [kept for name, kept in cookie_parser(value).items() if name == self.cookie]
        return found

    def _is_token(self, given: str) -> bool:
        return self.token is not None and secrets.compare_digest(given.encode(), self.token.encode())

    def _enters(self, scope: Scope, headers: Headers) -> bool:
        is_page = scope["method"] == "GET" and scope["path"] == "/" and "text/html" in headers.get("accept", "")
        return is_page and any(self._is_token(given) for given in _query(scope))

    def _entered(self, scope: Scope) -> Response:
        """Keep the token in a cookie and open the page again without it in its address."""
        response = HTMLResponse(ENTER)
        response.set_cookie(
            self.cookie, self.token or "", httponly=True, samesite="strict", secure=scope["scheme"] == "https"
        )
        return response

    async def _pass_on(self, scope: Scope, headers: Headers, receive: Receive, send: Send, nonce: str) -> None:
        is_upload = scope["path"] == UPLOADS
        most, length = (self.upload if is_upload else BODY), int(headers.get("content-length", 0))
        receive = _impatient(receive, self.patience)
        refused = ""
        if "transfer-encoding" in headers:
            refused = "send the request with its Content-Length."
        elif length > most + FORM:
            refused = f"the request has {length / 2**20:.1f} MB; at most {most / 2**20:.0f} MB are taken."
        elif is_upload and self.used() + self._receiving + length > self.uploads:
            refused = f"visitors' files already fill their {self.uploads / 2**20:.0f} MB; try again later."
        if refused:
            while (await receive()).get("more_body"):  # a browser reads the answer only after it has sent everything
                pass
            await PlainTextResponse(f"medst: {refused}\n", 413)(scope, receive, send)
            return
        # Without compression, so that the nonce can be written into the page.
        dropped = (b"x-gradio-server", b"accept-encoding") if scope["path"] == "/" else (b"x-gradio-server",)
        scope = {**scope, "headers": [(name, value) for name, value in scope["headers"] if name not in dropped]}
        self._receiving += length if is_upload else 0
        try:
            await _answered(self.app, scope, receive, _with_nonce(send, nonce) if scope["path"] == "/" else send)
        finally:
            self._receiving -= length if is_upload else 0
            if is_upload and not self._receiving:
                self.tidy()


def _impatient(receive: Receive, patience: float) -> Receive:
    """The same, but a body that stalls counts as a connection that is lost."""
    complete = False

    async def impatient() -> Message:
        nonlocal complete
        if complete:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), patience)
        except TimeoutError:
            message = {"type": "http.disconnect"}
        complete = not message.get("more_body")
        return message

    return impatient


async def _answered(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Let the page answer; what it raises becomes one line in the log and one sentence for the visitor."""
    held: list[Message] = []  # an answer of status 500, which an exception may follow
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
            asked = isinstance(error, (ValueError, LookupError, OSError)) or "gradio" in type(error).__module__
            said = "the page can't make sense of this request." if asked else "the page failed; its log says why."
            await PlainTextResponse(f"medst: {said}\n", 400 if asked else 500)(scope, receive, send)
        return
    for message in held:
        await send(message)


def log_failure(what: str, error: Exception) -> None:
    """Note what failed, in one line without a traceback."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f", at {trace.tb_frame.f_code.co_name}:{trace.tb_lineno}"
    words = " ".join(str(error).split())[:200]
    logging.getLogger("medst.app").warning("medst: %s failed (%s: %r%s)", what, type(error).__name__, words, place)


def _route(path: str) -> str:
    """The path's first part; its first two below gradio's prefix."""
    parts = path.split("/")[1:]
    if not parts or (parts[0] == "" and path != "/"):
        return "?"
    return "/".join(parts[:2]) if parts[0] == "gradio_api" else parts[0]


def _query(scope: Scope) -> list[str]:
    return parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [])


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _same(origin: str, host: str) -> bool:
    """Whether a page of this origin was served under this value of Host."""
    scheme, _, place = origin.lower().partition("://")
    default = {"http": ":80", "https": ":443"}.get(scheme)
    return default is not None and place.removesuffix(default) == host.lower().removesuffix(default)


def _hardened(send: Send, nonce: str, is_fixed: bool) -> Send:
    async def hardened(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(HEADERS | {"Content-Security-Policy": POLICY.format(nonce=nonce)})
            headers.setdefault("Cache-Control", "no-cache" if is_fixed else "no-store")
        await send(message)

    return hardened


def _with_nonce(send: Send, nonce: str) -> Send:
    """Mark the scripts of gradio's own page; what comes from data has no `<` in it there."""
    start: Message | None = None
    page = b""

    async def marked(message: Message) -> None:
        nonlocal start, page
        if message["type"] == "http.response.start":
            start = message
            return
        page += message.get("body", b"")
        if message.get("more_body") or start is None:
            return
        page = page.replace(b"<script", f'<script nonce="{nonce}"'.encode())
        MutableHeaders(scope=start)["content-length"] = str(len(page))
        await send(start)
        await send({"type": "http.response.body", "body": page})

    return marked
