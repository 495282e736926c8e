"""How the agent and this host are, and whether runs may start at all."""

from __future__ import annotations

from api import schemas
from api.routes.parts import Agent, By, secrets_of


async def show_status(agent: Agent) -> schemas.AgentStatus:
    """Everything that matters now, on one page."""
    return schemas.AgentStatus.of(agent.status(), secrets_of(agent))


async def pause(
    agent: Agent, by: By, order: schemas.PauseOrder | None = None
) -> schemas.AgentStatus:
    """Start no runs; looking and telling go on."""
    order = order or schemas.PauseOrder()
    await agent.pause(by=by, seconds=order.for_seconds, why=order.why)
    return await show_status(agent)


async def resume(agent: Agent, by: By) -> schemas.AgentStatus:
    """Let runs start again."""
    await agent.resume(by=by)
    return await show_status(agent)


async def confirm_host(
    agent: Agent, by: By, order: schemas.ConfirmOrder | None = None
) -> schemas.AgentStatus:
    """Accept a state that was lost or is a copy as this host's own: it acts and tells again.

    Until then no token lets anybody in, so that only the UNIX socket takes this order."""
    order = order or schemas.ConfirmOrder()
    await agent.confirm_host(by=by, keep_tokens=order.keep_tokens)
    return await show_status(agent)


async def reload_config(agent: Agent, by: By) -> schemas.AgentStatus:
    """Read the configuration again; one that cannot be used changes nothing."""
    status = await agent.reload(by=by)
    return schemas.AgentStatus.of(status, secrets_of(agent))
