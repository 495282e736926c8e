"""The HTTP application: every route in one table, with what it asks of its caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.agent import AgentFacade
from api import problems
from api.auth import Access, Authentication, find_caller, require
from api.idempotency import HEADER, LONGEST_KEY, Answers
from api.limits import Limits, Rates
from api.problems import Problem, ProblemField, explain_defect, install_problems
from api.routes import (
    actions,
    audits,
    checks,
    digests,
    drills,
    events,
    health,
    incidents,
    notices,
    rehearsals,
    remedies,
    runs,
    silences,
    status,
    tokens,
    told,
)
from api.trail import record

#: No order is longer; whoever sends more is not a client of this API.
LONGEST_BODY = 256 * 1024


@dataclass(frozen=True)
class Route:
    """A way in: what is asked, by whom, and which errors it knows beside the common ones."""

    method: str
    path: str
    access: Access
    endpoint: Callable[..., Coroutine[Any, Any, Any]]
    errors: tuple[int, ...] = ()
    status: int = 200
    response: type[Response] = JSONResponse
    #: An order is on record in the trail; what is only reported is not.
    recorded: bool = True

    @property
    def acts(self) -> bool:
        return self.method != "GET"


_OPEN, _REPORTER, _VIEWER, _DRILLER, _OPERATOR, _ADMIN = Access

# fmt: off
ROUTES = (
    Route("GET",  "/healthz", _OPEN, health.show_health),
    Route("GET",  "/readyz", _VIEWER, health.show_readiness),
    Route("GET",  "/v1/status", _VIEWER, status.show_status),
    Route("POST", "/v1/pause", _OPERATOR, status.pause),
    Route("POST", "/v1/resume", _OPERATOR, status.resume),
    Route("POST", "/v1/confirm", _OPERATOR, status.confirm_host, (409,)),
    Route("POST", "/v1/config/reload", _ADMIN, status.reload_config),
    Route("GET",  "/v1/checks", _VIEWER, checks.list_checks, (422,)),
    Route("GET",  "/v1/checks/{name}", _VIEWER, checks.show_check, (404,)),
    Route("POST", "/v1/checks/{name}/look", _OPERATOR, checks.look, (404,)),
    Route("POST", "/v1/checks/{name}/findings", _REPORTER, told.report, (404, 409),
          recorded=False),
    Route("POST", "/v1/hooks/alertmanager", _REPORTER, told.report_alerts, recorded=False),
    Route("GET",  "/v1/incidents", _VIEWER, incidents.list_incidents, (422,)),
    Route("GET",  "/v1/incidents/{id}", _VIEWER, incidents.show_incident, (404,)),
    Route("GET",  "/v1/incidents/{id}/explain", _VIEWER, incidents.explain_incident, (404,)),
    Route("GET",  "/v1/incidents/{id}/report", _VIEWER, incidents.report_incident, (404,)),
    Route("POST", "/v1/incidents/{id}/acknowledge", _OPERATOR, incidents.acknowledge, (404, 409)),
    Route("POST", "/v1/incidents/{id}/approve", _OPERATOR, incidents.approve, (404, 409)),
    Route("POST", "/v1/incidents/{id}/reject", _OPERATOR, incidents.reject, (404, 409)),
    Route("POST", "/v1/incidents/{id}/retry", _OPERATOR, incidents.retry, (404, 409)),
    Route("POST", "/v1/incidents/{id}/close", _OPERATOR, incidents.close, (404, 409)),
    Route("GET",  "/v1/remedies", _VIEWER, remedies.list_remedies, (422,)),
    Route("GET",  "/v1/remedies/{name}", _VIEWER, remedies.show_remedy, (404,)),
    Route("POST", "/v1/remedies/{name}/runs", _OPERATOR, remedies.run_remedy, (404, 409), 202),
    Route("GET",  "/v1/runs", _VIEWER, runs.list_runs, (422,)),
    Route("GET",  "/v1/runs/{id}", _VIEWER, runs.show_run, (404,)),
    Route("GET",  "/v1/runs/{id}/events", _VIEWER, runs.list_run_events, (404, 422)),
    Route("POST", "/v1/runs/{id}/cancel", _OPERATOR, runs.cancel_run, (404, 409)),
    Route("GET",  "/v1/digest", _VIEWER, digests.show_digest, (422,)),
    Route("GET",  "/v1/notices", _VIEWER, notices.list_notices, (422,)),
    Route("POST", "/v1/notices/test", _OPERATOR, notices.try_routes, (404, 409)),
    Route("GET",  "/v1/silences", _VIEWER, silences.list_silences, (422,)),
    Route("GET",  "/v1/silences/{id}", _VIEWER, silences.show_silence, (404, 422)),
    Route("POST", "/v1/silences", _OPERATOR, silences.add_silence, status=201),
    Route("DELETE", "/v1/silences/{id}", _OPERATOR, silences.end_silence, (404,)),
    Route("GET",  "/v1/audits", _VIEWER, audits.list_audits, (422,)),
    Route("GET",  "/v1/audits/{id}", _VIEWER, audits.show_audit, (404, 422)),
    Route("POST", "/v1/audits", _OPERATOR, audits.start_audit, (404,), 202),
    Route("GET",  "/v1/drills", _VIEWER, drills.list_drills, (422,)),
    Route("GET",  "/v1/drills/{id}", _VIEWER, drills.show_drill, (404, 422)),
    Route("POST", "/v1/drills", _DRILLER, drills.start_drill, (404, 409), 202),
    Route("DELETE", "/v1/drills/{id}", _DRILLER, drills.end_drill, (404,)),
    Route("GET",  "/v1/rehearsals", _VIEWER, rehearsals.list_rehearsals, (422,)),
    Route("GET",  "/v1/rehearsals/{id}", _VIEWER, rehearsals.show_rehearsal, (404, 422)),
    # A report, and far too long for the trail.
    Route("POST", "/v1/rehearsals", _OPERATOR, rehearsals.keep_rehearsal, status=201,
          recorded=False),
    Route("GET",  "/v1/actions", _VIEWER, actions.list_actions, (422,)),
    Route("GET",  "/v1/tokens", _ADMIN, tokens.list_tokens, (422,)),
    Route("GET",  "/v1/tokens/{id}", _ADMIN, tokens.show_token, (404, 422)),
    Route("POST", "/v1/tokens", _ADMIN, tokens.create_token, (409,), 201),
    Route("DELETE", "/v1/tokens/{id}", _ADMIN, tokens.revoke_token, (404,)),
    Route("GET",  "/v1/events", _VIEWER, events.stream_events, (422,), response=events.EventStream),
)
# fmt: on


def create_app(agent: AgentFacade, *, version: str = "", rates: Rates | None = None) -> FastAPI:
    """The application in front of one agent; `rates` limits what comes over TCP.

    `app.state.stopping` is an event: once it is set, streams end and `/readyz` says so.
    """
    app = FastAPI(
        title="hostmend",
        version=version or "unknown",
        description="The REST API of one hostmend agent.",
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        # Explicit: an environment variable could otherwise make it send this host's data away.
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    app.state.agent = agent
    app.state.stopping = asyncio.Event()
    app.state.answers = Answers()
    for route in ROUTES:
        _add_route(app, route)
    install_problems(app)
    # The last one added is the first to see a request.
    app.add_middleware(_LimitBody)
    app.add_middleware(_CatchDefects)
    app.add_middleware(Authentication, agent=agent, limits=Limits(rates or Rates()))
    app.openapi = partial(_describe, app)  # type: ignore[method-assign]
    return app


def _add_route(app: FastAPI, route: Route) -> None:
    known = sorted({*route.errors, *_common_errors(route)})
    noun = route.path.removeprefix("/v1").split("/")[1]
    app.router.add_api_route(
        route.path,
        route.endpoint,
        methods=[route.method],
        status_code=route.status,
        operation_id=route.endpoint.__name__,
        tags=[noun],
        dependencies=[] if route.access is Access.OPEN else [Depends(require(route.access))],
        responses={code: _PROBLEM_RESPONSES[code] for code in known},
        openapi_extra=_describe_more(route),
        response_class=route.response,
        route_class_override=_OrderRoute if route.recorded else _ReportRoute,
    )


def _common_errors(route: Route) -> tuple[int, ...]:
    if route.access is Access.OPEN:
        return (429, 500)
    # 422: an order that cannot be used, or a key that was used for another.
    orders = (400, 413, 415, 422) if route.acts else ()
    return (401, 403, *orders, 429, 500, 503)


def _describe_problem(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {problems.MEDIA_TYPE: {"schema": schema}}}


_PROBLEM_RESPONSES = {
    400: _describe_problem("The request cannot be read"),
    401: _describe_problem("Nobody knows who asks"),
    403: _describe_problem("The caller's role is not enough"),
    404: _describe_problem("There is nothing of that name"),
    409: _describe_problem("The order contradicts the present state"),
    413: _describe_problem("The body is too long"),
    415: _describe_problem("The body is not JSON"),
    422: _describe_problem("The request can be read, but not be used"),
    429: _describe_problem("Too many requests; `Retry-After` says when to go on"),
    500: _describe_problem("A defect of hostmend; its log has the particulars"),
    503: _describe_problem("A part of the agent or of this host is not available"),
}


#: OpenAPI has a role as what a bearer token must allow.
_BEARER = "bearer"


def _describe_more(route: Route) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if route.access is not Access.OPEN:
        more["security"] = [{_BEARER: [route.access.value]}]
    if route.acts:
        more["parameters"] = [
            {
                "name": HEADER,
                "in": "header",
                "required": False,
                "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY},
                "description": "Requests with one key act once; the others get the first's answer",
            }
        ]
    return more


def _describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the one error type that every route refers to."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
        )
        schemas = document["components"]["schemas"]
        template = "#/components/schemas/{model}"
        described = Problem.model_json_schema(ref_template=template)
        described.pop("$defs", None)
        schemas["Problem"] = described
        document["components"]["securitySchemes"] = {
            _BEARER: {
                "type": "http",
                "scheme": "bearer",
                "description": "Over TCP only: the UNIX socket is guarded by its permissions",
            }
        }
        schemas["ProblemField"] = ProblemField.model_json_schema(ref_template=template)
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        for operation in (o for path in document["paths"].values() for o in path.values()):
            # FastAPI documents one of its own for whatever has a parameter.
            if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                del operation["responses"]["422"]
        app.openapi_schema = document
    return app.openapi_schema


class _OrderRoute(APIRoute):
    """Puts orders on record, and carries out those with one `Idempotency-Key` once."""

    recorded = True

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_order(request: Request) -> Response:
            if request.method == "GET":
                return await handle(request)
            body = await request.body()
            kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            if body and kind != "application/json":
                raise HTTPException(415, "cannot read the body: send it as application/json")
            key = request.headers.get(HEADER)
            caller = find_caller(request)

            async def act() -> Response:
                if not self.recorded:
                    return await handle(request)
                return await record(
                    request.app.state.agent,
                    lambda: handle(request),
                    by=caller.by,
                    what=str(self.operation_id),
                    target=" ".join(map(str, request.path_params.values())),
                    body=body,
                )

            if key is None:
                return await act()
            if not (0 < len(key) <= LONGEST_KEY):
                raise HTTPException(
                    400, f"cannot use {HEADER}: it must have 1 to {LONGEST_KEY} characters"
                )
            answers: Answers = request.app.state.answers
            asked = f"{request.method} {request.url.path}?{request.url.query}"
            return await answers.once(caller.id, key, asked, body, act)

        return handle_order


class _ReportRoute(_OrderRoute):
    """As orders, but for the record: what jobs report each minute would wash the trail out."""

    recorded = False


class _CatchDefects:
    """The last resort: an error that nobody expected becomes a problem, not a traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def send_on(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except ClientDisconnect:
            # Nobody is left to answer to, and it is no defect of ours.
            return
        except Exception as error:
            if begun:
                raise
            await explain_defect(error)(scope, receive, send)


class _LimitBody:
    """Refuses bodies that are longer than any order."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = 0

        async def receive_part() -> Message:
            nonlocal length
            message = await receive()
            length += len(message.get("body", b""))
            if length > LONGEST_BODY:
                raise HTTPException(413, f"cannot read the body: it is over {LONGEST_BODY} bytes")
            return message

        await self._app(scope, receive_part, send)
