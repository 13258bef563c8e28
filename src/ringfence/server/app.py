"""The routes. Knows how requests arrive and replies leave, and nothing of how they are made."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from ringfence.embedding import Embedder
from ringfence.engine import Engine
from ringfence.errors import ContextError, RingfenceError
from ringfence.events import Committed, Ended
from ringfence.judges import Judge
from ringfence.server import metrics
from ringfence.server.failures import JSON, ErrorBody, Failure, failure_of, log_failure, of_body
from ringfence.server.gate import Gate
from ringfence.server.jobs import Job, Step
from ringfence.server.planning import too_small
from ringfence.server.replies import ChatCompletion, Outcome, TextCompletion
from ringfence.server.requests import ChatRequest, CompletionRequest
from ringfence.server.service import Service
from ringfence.server.settings import ServerSettings
from ringfence.server.shapes import TextShape, shape_of
from ringfence.server.streaming import (
    DONE,
    SEARCHING,
    ClientGone,
    EventStream,
    event,
    unless_gone,
)

_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "Something cannot be honoured; `param` names it"},
    404: {"model": ErrorBody, "description": "There is no such model"},
    408: {"model": ErrorBody, "description": "The body took too long to arrive"},
    413: {"model": ErrorBody, "description": "The body is too large"},
    422: {"model": ErrorBody, "description": "The budget is spent and `exhausted` is `error`"},
    429: {"model": ErrorBody, "description": "The queue is full; see Retry-After"},
    500: {"model": ErrorBody, "description": "The server failed"},
    503: {"model": ErrorBody, "description": "The engine failed, or the server is stopping"},
}
_REFUSED: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorBody, "description": "The API key is missing or wrong"},
    403: {"model": ErrorBody, "description": "Without a key, only localhost is answered"},
}
_STREAM = {"text/event-stream": {"schema": {"type": "string"}}}


def create_app(
    engine: Engine,
    *,
    judges: Mapping[str, Judge],
    settings: ServerSettings,
    embedder: Embedder | None = None,
) -> FastAPI:
    """The application. It does not own the engine: whoever opened it closes it.

    Args:
        engine: makes the replies.
        judges: by the name of their principle; requests may name these and no others.
        settings: how it is set up.
        embedder: for the similarity update of the search; None takes the default.

    Raises:
        InputError: settings that the judges cannot honour.
    """
    service = Service(engine, judges, settings, embedder)
    app = FastAPI(
        title="ringfence",
        version=version("ringfence"),
        # Both fetch scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        responses=_REFUSED,
        dependencies=[Security(HTTPBearer(auto_error=False))] if settings.api_key else [],
    )
    app.state.service = service
    app.add_middleware(Gate, settings=settings)
    _handle_errors(app)
    _add_replies(app, service)
    _add_descriptions(app, service)
    return app


def _handle_errors(app: FastAPI) -> None:
    """OpenAI's error object for all that goes wrong, FastAPI's own errors included."""

    async def failed(_: Request, error: Exception) -> Response:
        return failure_of(error).response()

    async def unreadable(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return of_body(error.errors()).response()

    async def routed(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        messages = {
            404: f"there is no {request.url.path}",
            405: f"{request.url.path} does not take {request.method}",
        }
        failure = Failure(
            error.status_code,
            messages.get(error.status_code, str(error.detail)),
            code={404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid"),
            headers=error.headers,
        )
        return failure.response()

    app.add_exception_handler(Failure, failed)
    app.add_exception_handler(RingfenceError, failed)
    app.add_exception_handler(RequestValidationError, unreadable)
    app.add_exception_handler(HTTPException, routed)


def _add_replies(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/chat/completions",
        responses={200: {"model": ChatCompletion, "content": _STREAM}, **_ERRORS},
    )
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        """Answer a conversation."""
        return await _answer(service, body, request)

    @app.post(
        "/v1/completions",
        responses={200: {"model": TextCompletion, "content": _STREAM}, **_ERRORS},
    )
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Continue a text."""
        return await _answer(service, body, request)


def _add_descriptions(app: FastAPI, service: Service) -> None:
    def model() -> dict[str, object]:
        return {
            "id": service.planner.model,
            "object": "model",
            "created": service.started,
            "owned_by": "ringfence",
            "max_model_len": service.context,
            "ringfence": service.about(),
        }

    @app.get("/v1/models")
    async def models() -> Response:
        """The one model, and what guards it."""
        return JSON({"object": "list", "data": [model()]})

    @app.get("/v1/models/{name:path}", responses={code: _ERRORS[code] for code in (404, 422)})
    async def one_model(name: str) -> Response:
        """The model, by name."""
        service.planner.check_model(name)
        return JSON(model())

    @app.get("/health", responses={503: _ERRORS[503]})
    async def health() -> Response:
        """Whether requests are taken."""
        service.admission.check_open()
        return JSON({"status": "ok"})

    @app.get("/metrics", response_class=Response)
    async def figures() -> Response:
        """Figures in Prometheus' format."""
        return Response(service.metrics.text(), media_type=metrics.CONTENT_TYPE)

    @app.get("/version")
    async def which_version() -> Response:
        """The version of ringfence."""
        return JSON({"version": version("ringfence")})


async def _answer(
    service: Service, body: ChatRequest | CompletionRequest, request: Request
) -> Response:
    """Plan, wait for a slot, decode, reply; all of it stops when the client leaves."""
    job: Job | None = None
    try:
        plan = await unless_gone(request.receive, service.plan(body))
        job = service.job(plan)
        shape = shape_of(body, plan)
        steps = job.steps(service.settings.keepalive)
        if body.stream:
            # The status is sent only once something is known, so that failing at once is an error
            # and not a stream that begins well.
            first = await unless_gone(request.receive, _first(steps))
            # From here on the stream closes the job.
            streamed, job = job, None
            return EventStream(_parts(shape, first, steps, body), streamed.close)
        outcomes = await unless_gone(request.receive, _collect(steps, len(plan.options)))
        return JSON(shape.whole(outcomes))
    except ClientGone:
        return Response(status_code=499)
    except ContextError:
        raise too_small(body) from None
    finally:
        if job is not None:
            await job.close()


async def _first(steps: AsyncGenerator[Step | None, None]) -> Step | None:
    """The first step, or None where it takes its time."""
    return await anext(steps)


async def _collect(steps: AsyncGenerator[Step | None, None], count: int) -> list[Outcome]:
    """All replies, once they have ended."""
    fold = _Fold(count)
    async for step in steps:
        if step is not None:
            fold.add(step)
    return [fold.outcome(index) for index in range(count)]


class _Fold:
    """Texts and ends of the replies of one request."""

    def __init__(self, count: int) -> None:
        self._texts = [""] * count
        self._ends: list[Ended | None] = [None] * count

    def add(self, step: Step) -> None:
        if isinstance(step.event, Committed):
            self._texts[step.choice] += step.event.text
        else:
            self._ends[step.choice] = step.event

    def outcome(self, index: int) -> Outcome:
        ended = self._ends[index]
        assert ended is not None, "every reply of a job that did not fail has ended"
        return Outcome(text=self._texts[index], ended=ended)

    def ends(self) -> Sequence[Ended]:
        return [self.outcome(index).ended for index in range(len(self._ends))]


async def _parts(
    shape: TextShape,
    first: Step | None,
    steps: AsyncGenerator[Step | None, None],
    body: ChatRequest | CompletionRequest,
) -> AsyncGenerator[str, None]:
    """The stream: what is committed, and comments while nothing is."""
    fold = _Fold(len(shape.plan.options))
    for chunk in shape.openings():
        yield event(chunk)
    step = first
    try:
        while True:
            if step is None:
                yield SEARCHING
            else:
                fold.add(step)
                if isinstance(step.event, Committed):
                    for chunk in shape.pieces(step.choice, step.event.text):
                        yield event(chunk)
                else:
                    for chunk in shape.endings(step.choice, fold.outcome(step.choice)):
                        yield event(chunk)
            try:
                step = await anext(steps)
            except StopAsyncIteration:
                break
        for chunk in shape.closings(fold.ends()):
            yield event(chunk)
    except ContextError:
        yield event(too_small(body).body())
    except (Failure, RingfenceError) as error:
        yield event(failure_of(error).body())
    except Exception as error:
        log_failure(error)
        yield event(failure_of(error).body())
    yield DONE
