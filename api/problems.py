"""Every error as `application/problem+json` (RFC 9457), with nothing of the inside in it."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from agent.errors import (
    ConfigError,
    Conflict,
    HostmendError,
    Invalid,
    NotFound,
    RemedyError,
    StoreError,
    Unavailable,
)

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

#: Errors whose text is fit for an operator, most particular first. All others are a 500.
STATUS_OF: Mapping[type[HostmendError], int] = {
    NotFound: 404,
    Conflict: 409,
    Invalid: 422,
    ConfigError: 422,
    RemedyError: 422,
    Unavailable: 503,
    StoreError: 503,
}


class ProblemField(BaseModel):
    """One part of a request that is wrong."""

    where: str = Field(description="`body`, `query`, `path` or `header`, then the names down to it")
    message: str


class Problem(BaseModel):
    """What went wrong, as RFC 9457 has it."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="A stable name of the kind of problem", examples=["about:blank"])
    title: str = Field(description="The status in words")
    status: int
    detail: str = Field(description="One sentence: what could not be done, why, and the way out")
    instance: str | None = Field(
        default=None, description="Status 500 only: look for this in the agent's log"
    )
    errors: list[ProblemField] | None = Field(
        default=None, description="Each part of the request that is wrong"
    )


def make_problem(
    status: int,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> JSONResponse:
    """The response for one problem; `members` that are None are left out."""
    problem = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail.encode("utf-8", "replace").decode(),
        **{name: value for name, value in members.items() if value is not None},
    }
    return JSONResponse(problem, status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def explain_error(error: HostmendError) -> JSONResponse:
    """The response for an error raised on purpose."""
    for kind, status in STATUS_OF.items():
        if isinstance(error, kind):
            if isinstance(error, ConfigError):
                return make_problem(
                    status, str(error), file=error.file, line=error.line, key=error.key
                )
            return make_problem(status, str(error))
    return explain_defect(error)


def tell_refusal(error: Exception) -> str | None:
    """Why an order was refused, in the words of its problem; None for a defect."""
    match error:
        case RequestValidationError():
            return _say_validation(error)
        case HTTPException():
            return str(error.detail)
        case HostmendError() if isinstance(error, tuple(STATUS_OF)):
            return str(error)
        case _:
            return None


def explain_defect(error: BaseException) -> JSONResponse:
    """The response for what nobody expected: a name to look for in the log, and no more."""
    name = uuid.uuid4().urn
    log.error("a request failed unexpectedly (%s)", name, exc_info=error)
    return make_problem(
        500,
        f"cannot answer: a defect of hostmend; its log has the particulars under {name}",
        instance=name,
    )


def install_problems(app: FastAPI) -> None:
    """Makes every error of an application a problem."""

    # Starlette calls each only with the kind it was registered for.
    async def on_error(_request: Request, error: Any) -> JSONResponse:
        return explain_error(error)

    async def on_http(request: Request, error: Any) -> JSONResponse:
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = _find_allowed(request)
        return make_problem(error.status_code, _say_http(request, error, headers), headers=headers)

    async def on_validation(_request: Request, error: Any) -> JSONResponse:
        return _explain_validation(error)

    app.add_exception_handler(HostmendError, on_error)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_validation)


def _find_allowed(request: Request) -> str:
    """The methods of a path: each is a route of its own, and Starlette tells of the first alone."""
    methods = {
        method
        for route in request.app.routes
        if route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }
    return ", ".join(sorted(methods))


def _say_http(request: Request, error: HTTPException, headers: Mapping[str, str]) -> str:
    path = request.url.path
    match error.status_code:
        case 404:
            return f"cannot find {path}: there is no such path; /openapi.json has them all"
        case 405:
            return f"cannot {request.method} {path}: it takes {headers['Allow']}"
        case _:
            return str(error.detail)


def _list_wrong(error: RequestValidationError) -> list[dict[str, str]]:
    # What was sent is not repeated: it may hold a secret.
    return [
        {"where": ".".join(str(part) for part in item["loc"]), "message": str(item["msg"])}
        for item in error.errors()
    ]


def _say_validation(error: RequestValidationError) -> str:
    said = "; ".join(f"{item['where']}: {item['message']}" for item in _list_wrong(error))
    return f"cannot use the request: {said}"


def _explain_validation(error: RequestValidationError) -> JSONResponse:
    malformed = any(item["type"] == "json_invalid" for item in error.errors())
    return make_problem(
        400 if malformed else 422, _say_validation(error), errors=_list_wrong(error)
    )
