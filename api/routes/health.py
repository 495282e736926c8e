"""Is it alive, and is it ready?"""

from __future__ import annotations

from fastapi import Request

from agent.errors import Unavailable
from api.routes.parts import Agent
from api.schemas.health import Health


async def show_health() -> Health:
    """Whether the agent answers at all; needs no rights and tells nothing else."""
    return Health(status="ok")


async def show_readiness(request: Request, agent: Agent) -> Health:
    """Whether the agent can do its work; 503 while it shuts down."""
    if request.app.state.stopping.is_set():
        raise Unavailable("cannot take orders: the agent is shutting down")
    agent.status()
    return Health(status="ready")
