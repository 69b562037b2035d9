"""The explorer over HTTP on the loopback address, for one browser of one person.

Nothing is answered without the token: in the address that `mgd explore` prints, and from then on in a cookie that only
this server sets. Only who calls the server by a loopback name is answered, so a page from elsewhere cannot reach it by
a name of its own; nothing but GET is taken, apart from exports, which only the page itself may send. What is sent may
run no script but the one that comes with mgd, and load nothing from anywhere else.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from hmac import compare_digest
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from mgd_core.errors import UserError
from tasks.explore import exports
from tasks.explore.choice import ChoiceError, parsed
from tasks.explore.explorer import Explorer
from tasks.explore.thumbnails import SIZES, thumbnail
from tasks.explore.turns import Superseded, Turn, Turns
from tasks.files.package_data import CATALOGS
from tasks.tables.sql_names import IMPOSSIBLE
from tasks.tables.uids import HEX

PAGE = CATALOGS / "explore"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
LOOPBACK = ("127.0.0.1", "localhost")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
MOST_BODY = 4 << 20
"""Bytes of an order to export."""
Asked = Callable[[Request, Turn], Any]


def app(explorer: Explorer, port: int, token: str) -> ASGIApp:
    """The server of a page on an explorer, at a port of the loopback address."""
    service, turns = FastAPI(openapi_url=None, docs_url=None, redoc_url=None), Turns()

    def answer(path: str, kind: str, asked: Asked, method: str = "GET") -> None:
        async def answered(request: Request) -> Response:
            return await run_in_threadpool(_answered, request, kind, asked, turns)

        service.add_api_route(path, answered, methods=[method], response_model=None)

    answer("/api/run", "run", lambda *_: explorer.told())
    answer("/api/renew", "run", lambda *_: explorer.renew())
    answer("/api/count", "count", lambda r, turn: explorer.count(_choice(r), turn))
    answer("/api/chart", "chart", lambda r, turn: explorer.chart(_choice(r), _text(r, "key"), turn))
    answer("/api/rows", "rows", lambda r, turn: _rows(explorer, r, turn))
    answer("/api/moves", "moves", lambda r, turn: explorer.moves(_whole(r, "a"), _whole(r, "b"), turn))
    answer("/api/story/{uid}", "story", lambda r, turn: explorer.story(_uid(r), turn))

    async def exported(request: Request) -> Response:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MOST_BODY:
                return _json({"error": "too large an order: pick by a filter line instead"}, 413)
        order = bytes(body)
        return await run_in_threadpool(
            _answered, request, "export", lambda _, turn: exports.export(explorer, exports.parsed(order), turn), turns
        )

    service.add_api_route("/api/export", exported, methods=["POST"], response_model=None)

    def pictured(request: Request) -> Response:
        return _picture(explorer, request)

    service.add_api_route("/picture/{uid}", pictured, response_model=None)
    _static(service)
    return Guard(service, port, token)


class Guard:
    """Lets through who has the token and calls by a loopback name; adds what browsers are told of every answer."""

    def __init__(self, inner: ASGIApp, port: int, token: str) -> None:
        self._inner, self._token = inner, token
        self._hosts = {f"{name}:{port}" for name in LOOPBACK}
        self._cookie = f"mgd-explore-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._inner(scope, receive, send)
            return
        asked = HTTPConnection(scope)
        refused = self._refused(scope["method"], asked)
        told = dict(HEADERS)
        if refused is None and self._has(asked.query_params.get("token")):
            told["Set-Cookie"] = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                more = [(name.lower().encode(), value.encode()) for name, value in told.items()]
                message["headers"] = [*message.get("headers", []), *more]
            await send(message)

        inner: ASGIApp = self._inner if refused is None else _json({"error": refused}, 403)
        await inner(scope, receive, sending)

    def _refused(self, method: str, asked: HTTPConnection) -> str | None:
        """Why a request is not answered; None if it is."""
        host, origin = asked.headers.get("host", ""), asked.headers.get("origin")
        if host not in self._hosts:
            return "this server is asked by the address that `mgd explore` printed only"
        if (origin is not None or method != "GET") and origin not in {f"http://{one}" for one in self._hosts}:
            return "another page asks, or none"
        given = (asked.cookies.get(self._cookie), asked.headers.get("x-token"), asked.query_params.get("token"))
        if not any(map(self._has, given)):
            return "no token: open the address that `mgd explore` printed, which ends in ?token=..."
        return None

    def _has(self, given: str | None) -> bool:
        return given is not None and compare_digest(given.encode(), self._token.encode())


def new_token() -> str:
    """What only who started the server knows."""
    return secrets.token_urlsafe(24)


def _answered(request: Request, kind: str, asked: Asked, turns: Turns) -> Response:
    """The JSON of an answer, or of why there is none."""
    page = f"{request.query_params.get('page', '')[:40]}"
    own = kind if kind != "chart" else f"chart {request.query_params.get('key', '')[:200]}"
    try:
        with turns.taking(page, own) as turn:
            return _json(asked(request, turn))
    except Superseded as error:
        # No failure: a browser would write one on its console.
        return _json({"error": str(error), "superseded": True})
    except UserError as error:
        return _json({"error": str(error)}, 400)


def _picture(explorer: Explorer, request: Request) -> Response:
    """A thumbnail; known by its tag, since a uid's picture never changes."""
    uid, size = _uid(request), request.query_params.get("size", "128")
    if uid == "" or not size.isdecimal() or int(size) not in SIZES:
        return _json({"error": "no such picture"}, 404)
    tag = f'"{uid}-{size}"'
    cached = {"ETag": tag, "Cache-Control": "private, max-age=86400"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=cached)
    place = explorer.place(uid)
    root = explorer.pool_directory
    if place is None or place["image_size"] is None or root is None:
        return _json({"error": "no such picture"}, 404)
    try:
        data, kind = thumbnail(place, root, int(size))
    except (UserError, OSError) as error:
        return _json({"error": str(error)}, 404)
    return Response(data, media_type=kind, headers=cached)


def _rows(explorer: Explorer, request: Request, turn: Turn) -> list[dict[str, Any]]:
    start, size = (_whole(request, name) for name in ("start", "size"))
    return explorer.rows(_choice(request), start, size, turn)


def _choice(request: Request) -> Any:
    return parsed(_text(request, "choice"))


def _text(request: Request, name: str) -> str:
    text = request.query_params.get(name, "")
    if IMPOSSIBLE.search(text):
        raise ChoiceError(f"{name}: NUL, or half a character, is in no table")
    return text


def _whole(request: Request, name: str) -> int:
    text = request.query_params.get(name, "")
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ChoiceError(f"{name}: {text[:40]!r} is no whole number")
    return int(text)


def _uid(request: Request) -> str:
    """The uid of a path, or an empty text."""
    uid = str(request.path_params["uid"])
    return uid if HEX.fullmatch(uid) and len(uid) == 32 else ""


def _json(value: Any, status: int = 200) -> Response:
    # In ASCII: half a character, which a caption may hold, would end the answer.
    return Response(json.dumps(value), status, {"Cache-Control": "no-store"}, "application/json")


def _static(service: FastAPI) -> None:
    """The page, its script and its style, each by its own name."""
    files: Mapping[str, Path] = {"/": PAGE / "page.html", **{f"/{p.name}": p for p in PAGE.iterdir()}}

    def route(path: Path) -> Callable[[Request], Awaitable[Response]]:
        async def sent(_: Request) -> Response:
            kind = f"{TYPES[path.suffix]}; charset=utf-8"
            return Response(path.read_bytes(), headers={"Cache-Control": "no-store", "Content-Type": kind})

        return sent

    for name, path in files.items():
        if path.suffix in TYPES:
            service.add_api_route(name, route(path), response_model=None)
