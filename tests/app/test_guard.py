"""Requests that the guard admits or refuses: names, origins, the token, sizes and headers."""

import asyncio
import json
import os
import socket
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser
from tests.app.page_helpers import Page

from medst.app import serve
from medst.app.guard import ALLOWED_ROUTES, Guard
from medst.app.private_files import KEPT_SECONDS, LOCK, bytes_used
from medst.app.serve import new_token
from medst.errors import MedstError

JSON = {"Content_Type": "application/json"}


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """In a thread of its own, because Playwright leaves a loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, coroutine).result()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("HEAD", ""),
        ("GET", "config"),
        ("GET", "static/js/iframeResizer.contentWindow.min.js"),
        ("GET", "favicon.ico"),
        ("GET", "gradio_api/info"),
        ("GET", "gradio_api/queue/data?session_hash=a"),
        ("GET", "gradio_api/heartbeat/a"),
        ("POST", "gradio_api/call/patients"),
        ("POST", "gradio_api/upload"),
        ("GET", "no/such/page"),
    ],
)
def test_nothing_answers_without_the_token(page: Page, method: str, path: str) -> None:
    body = b'{"data": []}' if method == "POST" else None
    for headers in ({}, {"Authorization": "token wrong"}, {"Cookie": f"medst-{page.port}=wrong"}):
        status, sent, said = page.ask(path, body, token=False, method=method, **JSON, **headers)
        assert status == 403
        assert method == "HEAD" or "the token is missing or wrong" in said
        assert sent["x-content-type-options"] == "nosniff"
    status, _, _ = page.ask(path + ("&" if "?" in path else "?") + "token=wrong", body, token=False, method=method)
    assert status == 403


def test_a_websocket_is_not_answered(page: Page) -> None:
    _, _, said = page.ask("gradio_api/queue/join", token=False, Upgrade="websocket", Connection="Upgrade")
    assert "the token is missing or wrong" in said
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    guard = Guard(lambda *_: pytest.fail("passed on"), frozenset(), None, "", 1, 1, lambda: 0)  # type: ignore[arg-type]
    run(guard({"type": "websocket", "headers": []}, receive, send))  # type: ignore[arg-type]
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_the_token_opens_the_page_in_every_way_that_is_documented(page: Page) -> None:
    for given in ({"Authorization": f"token {page.token}"}, {"Authorization": f"Bearer {page.token}"},
                  {"Cookie": f"other=1; medst-{page.port}={page.token}"}):  # fmt: skip
        assert page.ask("config", token=False, **given)[0] == 200
    assert page.ask(f"config?token={page.token}", token=False)[0] == 200
    status, headers, said = page.ask(f"?token={page.token}", token=False, Accept="text/html")
    assert status == 200
    assert page.token not in said
    [cookie] = [value for name, value in headers.items() if name == "set-cookie"]
    assert cookie.startswith(f"medst-{page.port}={page.token}; ")
    assert {"HttpOnly", "SameSite=strict"} <= set(cookie.split("; "))


@pytest.mark.parametrize(
    "name", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "", "[::1", "10.0.0.9"]
)
def test_another_host_name_is_refused(page: Page, name: str) -> None:
    status, _, said = page.ask("config", Host=name.format(port=page.port))
    assert (status, "is not served under the name" in said) == (403, True) or (status, name) == (400, "")
    assert page.ask("config", X_Forwarded_Host="evil.example")[0] == 403


def test_the_names_of_this_computer_and_those_given_are_answered(page: Page) -> None:
    for name in (
        "localhost:1234",
        f"127.0.0.1:{page.port}",
        "LOCALHOST",
        "[::1]:80",
        "ward.example",
        "ward.example:443",
    ):
        assert page.ask("config", Host=name)[0] == 200
    _, _, said = page.ask("", Host="ward.example", X_Forwarded_Proto="https", Origin="https://ward.example")
    assert '"root":"https://ward.example"' in said


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost:{port}"},
        {"Origin": "null"},
        {"Origin": "file://"},
        {"Origin": "ftp://127.0.0.1:{port}"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"},
    ],
)
def test_another_origin_is_refused(page: Page, headers: dict[str, str]) -> None:
    asked = {name: value.format(port=page.port) for name, value in headers.items()}
    for method in ("GET", "OPTIONS", "POST"):
        status, sent, _ = page.ask(
            "gradio_api/info",
            method=method,
            Host=f"127.0.0.1:{page.port}",
            Access_Control_Request_Method="POST",
            **asked,
        )
        assert status == 403
        assert not [name for name in sent if name.startswith("access-control")]


def test_the_page_s_own_origin_and_a_click_on_a_link_are_admitted(page: Page) -> None:
    own = {"Origin": page.address.rstrip("/"), "Sec_Fetch_Site": "same-origin"}
    assert page.ask("config", **own)[0] == 200
    assert page.ask("", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200


def test_the_headers_restrict_what_the_page_may_do(page: Page) -> None:
    for path in ("", "config", "gradio_api/info", "no/such/page"):
        _, headers, said = page.ask(path)
        policy = headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        nonce = policy.partition("'nonce-")[2].partition("'")[0]
        assert said.count("<script") == said.count(f'<script nonce="{nonce}"')
    assert page.ask("")[1]["content-security-policy"] != page.ask("")[1]["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    ["gradio_api/file=/etc/passwd", "/gradio_api/info", "gradio_api/vibe-edit", "gradio_api/proxy=https://a.hf.space/",
     "gradio_api/deep_link", "gradio_api/dev/reload", "monitoring", "docs", "openapi.json", "gradio_api/component_server"],
)  # fmt: skip
def test_gradios_other_routes_are_closed(page: Page, path: str) -> None:
    assert page.ask(path)[0] == 404
    assert path.strip("/") not in ALLOWED_ROUTES or path.startswith("/")


def form(size: int) -> tuple[bytes, dict[str, str]]:
    head = '--edge\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    body = head.encode() + bytes(size) + b"\r\n--edge--\r\n"
    return body, {"Content_Type": "multipart/form-data; boundary=edge"}


def test_a_file_that_is_too_large_is_refused(page: Page) -> None:
    body, kind = form(3 * 2**20)
    status, _, said = page.ask("gradio_api/upload", body, **kind)
    assert status == 413
    assert "the request has 3.0 MB; at most 2 MB are allowed" in said


def test_all_files_together_are_limited(page: Page) -> None:
    [folder] = page.private
    (folder / "others.bin").write_bytes(bytes(serve.MOST_UPLOADS * 2 * 2**20 - 2**19))

    def sent(size: int) -> int:
        status, _, said = page.ask("gradio_api/upload", form(size)[0], **form(size)[1])
        for file in json.loads(said) if status == 200 else []:
            Path(file).unlink()
        return status

    try:
        assert sent(2**10) == 200
        status, _, said = page.ask("gradio_api/upload", form(2**20)[0], **form(0)[1])
        assert status == 413
        assert "the space for visitors' files (16 MB) is full" in said
    finally:
        (folder / "others.bin").unlink()
    assert sent(2**20) == 200


def test_a_request_without_a_length_or_with_a_large_one(page: Page) -> None:
    assert page.ask("gradio_api/queue/join", bytes(2**20 + 2**17), **JSON)[0] == 413
    host, port = "127.0.0.1", page.port
    with socket.create_connection((host, port)) as stream:
        stream.sendall(
            f"POST /gradio_api/queue/join HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: token {page.token}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".encode()
        )
        assert b" 413 " in stream.recv(100)


def test_long_texts_are_refused(page: Page, backend: Any) -> None:
    patient = backend.patients[0][1]
    for name, data, said in (
        ("similarity", [patient, "a" * 301], "the phrase has 301 characters; at most 300 are allowed"),
        ("similarity", ["p" * 101, "edema"], "the patient's id has 101 characters"),
        ("compare", [patient, 1, 2, "a" * 301], "the finding has 301 characters"),
        ("compare", [patient, "1", None, "edema"], "must be a whole number"),
        ("similarity", [patient, None], "the phrase must be a text"),
    ):
        event = json.loads(page.ask(f"gradio_api/call/{name}", json.dumps({"data": data}).encode(), **JSON)[2])
        assert said in page.ask(f"gradio_api/call/{name}/{event['event_id']}")[2]


def test_errors_are_a_sentence_without_a_traceback(page: Page, backend: Any) -> None:
    for path, body in (("gradio_api/call/nope", b'{"data": []}'), ("gradio_api/run/nope", b'{"data": []}'),
                       (f"static/{'a' * 300}", None), (f"assets/{'a' * 300}", None)):  # fmt: skip
        status, headers, said = page.ask(path, body, **JSON)
        assert (status, said) == (400, "medst: the page can't make sense of this request.\n")
        assert headers["x-content-type-options"] == "nosniff"
    patient = backend.patients[0][1]
    upload = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    for data in ([patient], [patient, upload], [patient, "\ud800"], ["\ud800", "edema"], [{}, "edema"], [[1], [2]]):
        event = json.loads(page.ask("gradio_api/call/similarity", json.dumps({"data": data}).encode(), **JSON)[2])
        said = page.ask(f"gradio_api/call/similarity/{event['event_id']}")[2]
        assert json.loads(said.partition("data: ")[2])["error"], data
    assert page.ask("gradio_api/run/similarity", b'{"data": [1]}', **JSON)[2] != '{"error":null}'
    assert "Traceback" not in (page.temporary / "said.txt").read_text()


def test_a_refused_upload_leaves_no_file(page: Page) -> None:
    body, kind = form(100)
    assert page.ask("gradio_api/upload", body.replace(b'"a.png"', b'".."'), **kind)[0] == 400
    for _ in range(100):  # the answer is sent before the file is removed
        left = [file for file in page.private[0].glob("tmp*") if file.is_file()]
        if not left:
            break
        time.sleep(0.1)
    assert not left


def test_a_stalled_upload_frees_its_share() -> None:
    sent: list[dict[str, Any]] = []
    removed: list[int] = []

    async def receive() -> dict[str, Any]:
        if not sent and not removed:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": b"", "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert guard._receiving == 100
        assert (await receive())["type"] == "http.disconnect"
        raise ConnectionError("the visitor is gone")

    remove = lambda: removed.append(1)  # noqa: E731
    guard = Guard(app, frozenset({"a"}), None, "", 1000, 1000, lambda: 0, remove, timeout=0.01)
    headers = [(b"host", b"a"), (b"content-length", b"100")]
    scope = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "headers": headers}
    run(guard(scope, receive, send))  # type: ignore[arg-type]
    assert guard._receiving == 0
    assert removed == [1]
    assert sent[0]["status"] == 400


def test_old_files_are_removed(tmp_path: Path) -> None:
    for name, age in (
        ("a", 0),
        ("b", KEPT_SECONDS + 60),
        (LOCK, KEPT_SECONDS + 60),
    ):
        (tmp_path / name).write_bytes(b"12345")
        then = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (then, then))
    assert bytes_used(tmp_path) == 5
    assert sorted(file.name for file in tmp_path.iterdir()) == [LOCK, "a"]


def test_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDST_TOKEN", raising=False)
    assert len({new_token() for _ in range(4)}) == 4
    assert min(len(new_token()) for _ in range(4)) >= 40
    monkeypatch.setenv("MEDST_TOKEN", "a-token_of-the-ward")
    assert new_token() == "a-token_of-the-ward"
    for bad in ("", "short", "twenty characters and blanks", "ä" * 20, "a&b=c" * 8):
        monkeypatch.setenv("MEDST_TOKEN", bad)
        with pytest.raises(MedstError, match="MEDST_TOKEN needs at least 16 characters"):
            new_token()


def test_another_page_of_this_computer_reads_nothing(browser: Browser, page: Page, tmp_path: Path) -> None:
    """A page on another port of localhost, in a browser that has the cookie."""
    import http.server
    import threading

    (tmp_path / "index.html").write_text("<title>other</title>")
    handler = lambda *given: http.server.SimpleHTTPRequestHandler(*given, directory=str(tmp_path))  # noqa: E731
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        context = browser.new_context()
        tab = context.new_page()
        tab.goto(page.opened)
        tab.wait_for_url(page.address)  # the reload without the token
        assert [cookie["name"] for cookie in context.cookies()] == [f"medst-{page.port}"]
        tab.goto(f"http://127.0.0.1:{other.server_address[1]}/")
        read = "u => fetch(u, {credentials: 'include'}).then(a => a.text(), () => 'refused')"
        assert tab.evaluate(read, f"{page.address}config") == "refused"
        send = "u => fetch(u, {method: 'POST', mode: 'no-cors', credentials: 'include'}).then(a => a.type, String)"
        tab.evaluate(send, f"{page.address}gradio_api/call/patients")
        framed = (
            "u => new Promise(done => { const f = document.createElement('iframe'); f.src = u; f.onload = () => "
            "done(f.contentDocument === null || f.contentDocument.body.innerText); document.body.append(f) })"
        )
        tab.evaluate(framed, page.address)
        assert tab.frames[-1].locator(".medst-study").count() == 0
        context.close()
        other.shutdown()
