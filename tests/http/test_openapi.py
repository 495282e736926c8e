"""The OpenAPI document tells all there is."""

from __future__ import annotations

import json
import re

import jsonschema_rs
import pytest
from fake_agent import FakeAgent

from api.app import ROUTES, create_app
from api.auth import Access

PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


@pytest.fixture
async def document(agent: FakeAgent) -> dict:
    return create_app(agent, version="0.1.0").openapi()


def test_every_route_is_in_it_with_a_name_of_its_own(document) -> None:
    told = {
        (method.upper(), path): operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert set(told) == {(route.method, route.path) for route in ROUTES}
    names = [operation["operationId"] for operation in told.values()]
    assert len(set(names)) == len(names)
    assert all(operation["description"] for operation in told.values())


def test_every_route_tells_its_answer_and_its_problems(document) -> None:
    for route in ROUTES:
        responses = document["paths"][route.path][route.method.lower()]["responses"]
        good = responses.pop(str(route.status))
        if route.path != "/v1/events":
            assert "$ref" in good["content"]["application/json"]["schema"], route.path
        else:
            assert "text/event-stream" in good["content"]
        for code, response in responses.items():
            assert response["content"] == PROBLEM, (route.path, code)
        assert set(route.errors) <= {int(code) for code in responses}
        if route.access is not Access.OPEN:
            assert {"401", "403", "500", "503"} <= set(responses), route.path
        if "{" in route.path:
            assert "404" in responses, route.path
        if route.acts:
            assert {"400", "413", "415", "422"} <= set(responses), route.path


def test_every_list_takes_a_cursor_and_every_order_a_key(document) -> None:
    for route in ROUTES:
        operation = document["paths"][route.path][route.method.lower()]
        names = {parameter["name"] for parameter in operation.get("parameters", [])}
        answer = json.dumps(operation["responses"][str(route.status)])
        if "Page_" in answer:
            assert {"limit", "before"} <= names, route.path
        if route.acts:
            assert "Idempotency-Key" in names, route.path


def test_it_refers_to_nothing_that_is_missing(document) -> None:
    used = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert used == set(document["components"]["schemas"])


async def test_what_is_answered_is_what_it_tells(web) -> None:
    document = (await web.unix.get("/openapi.json")).json()
    for path, name in (
        ("/v1/status", "AgentStatus"),
        ("/v1/incidents/i1", "IncidentStory"),
        ("/v1/incidents/i2/explain", "Explanation"),
        ("/v1/checks", "Page_Check_"),
        ("/v1/audits", "Page_Audit_"),
        ("/v1/audits/a1", "AuditResult"),
        ("/v1/drills", "Page_Drill_"),
        ("/v1/rehearsals", "Page_Rehearsal_"),
        ("/v1/rehearsals/h1", "RehearsalResult"),
        ("/v1/drills/d1", "Drill"),
        ("/v1/nothing", "Problem"),
    ):
        schema = {
            "$ref": f"#/components/schemas/{name}",
            "components": document["components"],
        }
        jsonschema_rs.validate(schema, (await web.unix.get(path)).json())
