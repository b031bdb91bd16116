"""The HTTP application: routes, keys, request ids, the access log, health and metrics.

Nothing is computed on the event loop: texts are tokenized, vectors are computed, and large answers are written by the
threads of the service.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from st_connectors.server.body import ClientLeft, discard_body, read_body
from st_connectors.server.calls import Result
from st_connectors.server.described import NOT_READY, described, informing
from st_connectors.server.faults import Fault, FaultKind
from st_connectors.server.info import information, model_information
from st_connectors.server.json_text import decode, encode
from st_connectors.server.keys import Keys, key_of
from st_connectors.server.service import Service
from st_connectors.server.shapes import errors, openai
from st_connectors.server.shapes.routes import ApiRequest, Route, Translation
from st_connectors.server.shapes.table import ROUTES
from st_connectors.server.traces import add_attributes, span
from st_core import __version__

__all__ = ["build_app"]

logger = logging.getLogger(__name__)
access = logging.getLogger("st_connectors.server.access")

LARGE = 65_536
"""The number of bytes of a body, or of numbers of an answer, from which a thread reads or writes it."""

UNWATCHED_S = 0.05
"""The seconds in which a request is usually answered, and in which its connection is not watched."""

CLIENT_LEFT = 499
"""The status in the log of a request whose client left, as in nginx."""


@dataclass(slots=True)
class _Exchange:
    """One request on its way: what the access log reports of it."""

    request_id: str
    client: str
    began: float
    texts: int = 0
    tokens: int = 0
    models: tuple[str, ...] = ()
    bytes: int = 0
    fault: FaultKind | None = None


def build_app(service: Service, keys: Keys, *, loaded: Callable[[], None] = lambda: None) -> ASGIApp:
    """Return the application of a service; ``loaded`` is called when the models are loaded, or cannot be."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.get_running_loop().run_in_executor(None, _load, service, loaded)
        try:
            yield
        finally:
            await loading
            await asyncio.get_running_loop().run_in_executor(None, service.drain)

    app = FastAPI(
        title="st-connectors",
        version=__version__,
        summary="Dense, sparse and reranking models in the request shapes of many APIs.",
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    server = _Server(service, keys)
    for route in ROUTES:
        app.add_api_route(
            route.path,
            server.endpoint(route),
            methods=["POST"],
            summary=route.summary,
            tags=[route.tag],
            response_class=Response,
            openapi_extra=described(route),
        )
    server.add_information(app)
    server.add_errors(app)
    direct = _Direct(app, {route.path: server.endpoint(route) for route in ROUTES})
    if service.settings.cors:
        return CORSMiddleware(
            direct, allow_origins=list(service.settings.cors), allow_methods=["*"], allow_headers=["*"]
        )
    return direct


class _Direct:
    """The routes of models without the layers of FastAPI, which take as long as encoding a short text.

    FastAPI 0.165 matches one path after the other and enters three exit stacks per request. All other requests, and the
    OpenAPI document, which has these routes too, are its own.
    """

    def __init__(self, app: FastAPI, endpoints: Mapping[str, Callable[[Request], Awaitable[Response]]]) -> None:
        self._app = app
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get(scope["path"]) if scope.get("method") == "POST" else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        response = await endpoint(Request(scope, receive))
        await response(scope, receive, send)


def _load(service: Service, loaded: Callable[[], None]) -> None:
    """Load the models, and store an error of loading."""
    try:
        service.load()
    except Exception as error:  # noqa: BLE001 - raised by the thread that serves
        service.error = error
    loaded()


class _Server:
    """The endpoints of an application."""

    def __init__(self, service: Service, keys: Keys) -> None:
        self._service = service
        self._keys = keys

    def endpoint(self, route: Route) -> Callable[[Request], Any]:
        """Return the endpoint of a route."""

        async def answer(request: Request) -> Response:
            with span(route.path):
                return await self._respond(route, request)

        return answer

    async def _respond(self, route: Route, request: Request) -> Response:
        """Answer a request, or refuse it in the form of its API, and log it."""
        exchange = _exchange(request)
        body, content = None, None
        try:
            headers = _headers(request)
            name = self._client_by_headers(headers, route)
            content = await read_body(request.receive, headers, self._service.settings.limits)
            body = await self._decoded(content)
            exchange.client = name or self._client_by_body(body, route) or exchange.client
            response = await self._answer(route, request, body, exchange)
        except Fault as fault:
            if content is None and fault.kind in _REFUSED_BY_HEADERS:
                await discard_body(request.receive, _headers(request), self._service.settings.limits)
            response = self._refusal(fault, route.style(body), exchange)
        except ClientLeft:
            self._service.metrics.count("st_cancelled_total")
            response = Response(status_code=CLIENT_LEFT)
        except Exception:
            logger.exception("a request failed")
            response = self._refusal(_failed(), route.style(body), exchange)
        self._log(request, response, exchange, route.path)
        return response

    async def _decoded(self, content: bytes) -> Any:
        if len(content) < LARGE:
            return decode(content)
        return await asyncio.wrap_future(self._service.run(lambda: decode(content)))

    def _client_by_headers(self, headers: Mapping[str, str], route: Route) -> str | None:
        """Return the name of the client's key; None without keys, or if the key may be in the body."""
        if not self._keys.are_required:
            return None
        name = self._keys.name_of(key_of(headers))
        if name is None and route.key_field is None:
            raise _unauthorized()
        return name

    def _client_by_body(self, body: Any, route: Route) -> str | None:
        """Return the name of the key in the body of a request, where a protocol sends it there."""
        if not self._keys.are_required or route.key_field is None:
            return None
        key = body.get(route.key_field) if isinstance(body, dict) else None
        name = self._keys.name_of(key if isinstance(key, str) else None)
        if name is None:
            raise _unauthorized()
        return name

    async def _answer(self, route: Route, request: Request, body: Any, exchange: _Exchange) -> Response:
        catalog = self._service.catalog
        api_request = ApiRequest(
            body,
            dict(request.query_params),
            catalog,
            tuple(self._service.models),
            exchange.request_id,
            int(time.time()),
        )
        translation = route.read(api_request)
        futures = self._service.submit(translation.calls, exchange.client)
        results = await _results(futures, request)
        self._service.record(results)
        exchange.models = tuple(dict.fromkeys(result.usage.model for result in results))
        exchange.tokens = sum(result.usage.total for result in results)
        exchange.texts = sum(len(result.usage.tokens) for result in results)
        content = await self._written(translation, results)
        return Response(content, media_type="application/json", headers=_compute_headers(results, exchange))

    async def _written(self, translation: Translation, results: Sequence[Result]) -> bytes:
        """Return the answer as JSON, written on a thread if it is large."""
        if sum(_size(result) for result in results) < LARGE:
            return encode(translation.write(results))
        return await asyncio.wrap_future(self._service.run(lambda: encode(translation.write(results))))

    def _refusal(self, fault: Fault, style: errors.Style, exchange: _Exchange) -> Response:
        """Return the answer to a request that is refused."""
        status = style.status(fault)
        exchange.fault = fault.kind
        self._service.metrics.count("te_request_failure", err=fault.kind.value)
        headers = {"x-request-id": exchange.request_id}
        if fault.retry_after is not None:
            headers["retry-after"] = str(fault.retry_after)
        if fault.kind is FaultKind.UNAUTHORIZED:
            headers["www-authenticate"] = "Bearer"
        if fault.kind in _LEAVES_BODY:
            headers["connection"] = "close"
        return Response(
            encode(style.write(fault, status, exchange.request_id)), status, headers, media_type="application/json"
        )

    def _log(self, request: Request, response: Response, exchange: _Exchange, path: str) -> None:
        """Count a request, and write its line of the access log, which contains no text of it."""
        seconds = time.monotonic() - exchange.began
        metrics = self._service.metrics
        add_attributes(http_status=response.status_code, st_texts=exchange.texts, st_tokens=exchange.tokens)
        metrics.count("te_request_count", method=path)
        metrics.count("st_requests_total", route=path, status=str(response.status_code))
        if response.status_code < 400:
            metrics.count("te_request_success", method=path)
            metrics.observe("te_request_duration", [seconds])
        if not self._service.settings.access_log:
            return
        line = {
            "time": round(time.time(), 3),
            "id": exchange.request_id,
            "client": exchange.client,
            "method": request.method,
            "path": path,
            "status": response.status_code,
            "ms": round(seconds * 1000, 2),
            "models": list(exchange.models),
            "texts": exchange.texts,
            "tokens": exchange.tokens,
            "bytes": len(response.body),
        }
        if exchange.fault is not None:
            line["fault"] = exchange.fault.value
        access.info(json.dumps(line))

    def add_information(self, app: FastAPI) -> None:
        """Add the routes that answer without a model."""
        service = self._service

        async def health() -> Response:
            return _json({"status": "failed"} if service.error else {"status": "ok"}, 503 if service.error else 200)

        async def ready() -> Response:
            return _json({"ready": service.is_ready}, 200 if service.is_ready else 503)

        async def metrics() -> Response:
            return Response(service.metrics.text(service.gauges()), media_type="text/plain; version=0.0.4")

        async def weaviate_ready() -> Response:
            return Response(status_code=204 if service.is_ready else 503)

        def open_to_all(path: str, answer: Callable[[], Any], tag: str, summary: str, **options: Any) -> None:
            app.add_api_route(
                path, answer, methods=["GET"], tags=[tag], summary=summary, responses={503: NOT_READY}, **options
            )

        for path in ("/health", "/ping"):
            open_to_all(path, health, "Information", "Whether the process lives")
        open_to_all("/ready", ready, "Information", "Whether models are loaded")
        open_to_all("/metrics", metrics, "Information", "Prometheus metrics", response_class=PlainTextResponse)
        for path in ("/.well-known/ready", "/.well-known/live"):
            open_to_all(path, weaviate_ready, "Weaviate", "Readiness", status_code=204)
        self._add_model_information(app)

    def _check_ready(self, request: Request) -> None:
        """Raise Fault for a request without a key, and while models are loaded."""
        if self._keys.are_required and self._keys.name_of(key_of(_headers(request))) is None:
            raise _unauthorized()
        if not self._service.is_ready:
            raise Fault(FaultKind.UNAVAILABLE, "the models are being loaded", retry_after=1)

    def _add_model_information(self, app: FastAPI) -> None:
        service = self._service

        def guarded(path: str, tag: str, summary: str, style: errors.Style, answer: Callable[[Request], Any]) -> None:
            async def endpoint(request: Request) -> Response:
                exchange = _exchange(request)
                try:
                    self._check_ready(request)
                    return _json(await asyncio.wrap_future(service.run(lambda: answer(request))))
                except Fault as fault:
                    return self._refusal(fault, style, exchange)

            names = re.findall(r"{(\w+)", path)
            app.add_api_route(
                path,
                endpoint,
                methods=["GET"],
                tags=[tag],
                summary=summary,
                response_class=Response,
                openapi_extra=informing(*names),
            )

        started = int(time.time())
        guarded("/info", "TEI", "Models and limits", errors.TEI, lambda request: information(service, _query(request)))
        guarded("/meta", "Weaviate", "The model", errors.PLAIN, lambda request: information(service, _query(request)))
        for path in ("/v1/models", "/api/v1/models"):
            guarded(path, "OpenAI", "Models", errors.OPENAI, lambda _request: openai.models(service.catalog, started))
        guarded(
            "/v1/models/{name:path}",
            "OpenAI",
            "One model, with its description",
            errors.OPENAI,
            lambda request: model_information(service.model(request.path_params["name"]), started),
        )

    def add_errors(self, app: FastAPI) -> None:
        """Answer unknown paths, and errors of this program, in a form of our own."""

        async def unknown(request: Request, error: Exception) -> Response:
            status = error.status_code if isinstance(error, HTTPException) else 500
            kind = FaultKind.WRONG_METHOD if status == 405 else FaultKind.NOT_FOUND
            message = "this path does not accept this method" if status == 405 else "unknown path; see /docs"
            return self._refusal(Fault(kind, message), errors.PLAIN, _exchange(request))

        async def failed(request: Request, error: Exception) -> Response:
            logger.error("a request failed: %s", type(error).__name__, exc_info=error)
            return self._refusal(_failed(), errors.PLAIN, _exchange(request))

        app.add_exception_handler(HTTPException, unknown)
        app.add_exception_handler(Exception, failed)


_REFUSED_BY_HEADERS = frozenset((FaultKind.MEDIA_TYPE, FaultKind.UNAUTHORIZED, FaultKind.TOO_MANY))
"""Faults that may be raised before the body is read."""

_LEAVES_BODY = frozenset((FaultKind.TIMEOUT, FaultKind.TOO_MANY, FaultKind.MEDIA_TYPE, FaultKind.UNAUTHORIZED))
"""Faults that may be raised before the body is read, after which the connection cannot be used again."""


def _unauthorized() -> Fault:
    return Fault(FaultKind.UNAUTHORIZED, "the API key is missing or wrong")


def _failed() -> Fault:
    """Return the fault for an error of this program, whose message may contain parts of a request."""
    return Fault(FaultKind.FAILED, "the request failed in the server; its log says why")


def _exchange(request: Request) -> _Exchange:
    given = request.headers.get("x-request-id", "")
    usable = 0 < len(given) <= 128 and given.isascii() and given.isprintable()
    client = request.client.host if request.client else "unknown"
    return _Exchange(given if usable else uuid.uuid4().hex, client, time.monotonic())


def _headers(request: Request) -> Mapping[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _query(request: Request) -> Mapping[str, str]:
    return dict(request.query_params)


async def _results(futures: Sequence[Future[Result]], request: Request) -> list[Result]:
    """Return the results of the calls of a request; cancel them if the client leaves."""
    waiting = [asyncio.wrap_future(future) for future in futures]
    try:
        await _wait_or_leave(waiting, request)
        for each in waiting:
            if each.done():
                each.result()  # raises the error of the call that failed first
        return [each.result() for each in waiting]
    except (Fault, ClientLeft):
        raise
    except Exception as error:
        logger.warning("a request failed: %s: %s", type(error).__name__, error)
        raise _as_fault(error) from error
    finally:
        for each in waiting:
            each.cancel()  # and the future that it waits for


async def _wait_or_leave(waiting: Sequence[asyncio.Future[Result]], request: Request) -> None:
    """Return when all calls have ended or one has failed; raise ClientLeft if the client has closed the connection.

    Connections are watched from some milliseconds on, because the watch takes as long as answering a short request.
    """
    first = asyncio.FIRST_EXCEPTION
    pending = (await asyncio.wait(waiting, timeout=UNWATCHED_S, return_when=first))[1] if waiting else set()
    if not pending or any(each.done() and each.exception() for each in waiting):
        return
    calls = asyncio.ensure_future(asyncio.wait(pending, return_when=first))
    leaving = asyncio.ensure_future(_left(request))
    both: list[asyncio.Future[Any]] = [calls, leaving]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not calls.done():
            raise ClientLeft
    finally:
        calls.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _as_fault(error: Exception) -> Fault:
    """Return the fault for an error of a model, whose message may contain parts of texts and is not passed on."""
    if isinstance(error, MemoryError):
        return Fault(FaultKind.FAILED, "the model ran out of memory; send fewer or shorter texts")
    return Fault(FaultKind.FAILED, f"the model failed ({type(error).__name__}); the log of the server says why")


def _size(result: Result) -> int:
    """Return about how many numbers the answer to a result contains."""
    rows = getattr(result, "rows", None)
    if rows is None:
        return 3 * len(result.usage.tokens) + int(getattr(getattr(result, "matrix", None), "values", _NONE).size)
    return int(rows.size) if hasattr(rows, "size") else LARGE


class _Nothing:
    size = 0


_NONE = _Nothing()


def _compute_headers(results: Sequence[Result], exchange: _Exchange) -> dict[str, str]:
    """Return TEI's headers about time and tokens, in milliseconds, and the request id."""

    def milliseconds(seconds: float) -> str:
        return str(round(seconds * 1000))

    return {
        "x-request-id": exchange.request_id,
        "x-compute-type": "cpu",
        "x-compute-tokens": str(exchange.tokens),
        "x-total-time": milliseconds(time.monotonic() - exchange.began),
        "x-tokenization-time": milliseconds(max((each.usage.tokenize_s for each in results), default=0)),
        "x-queue-time": milliseconds(max((each.usage.queue_s for each in results), default=0)),
        "x-inference-time": milliseconds(max((each.usage.compute_s for each in results), default=0)),
    }


def _json(value: Any, status: int = 200) -> Response:
    return Response(encode(value), status, media_type="application/json")
