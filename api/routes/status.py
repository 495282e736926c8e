"""How the agent and this host are, and whether runs may start at all."""

from __future__ import annotations

from api.routes.parts import Agent, By, secrets_of
from api.schemas.status import AgentStatus, ConfirmOrder, PauseOrder


async def show_status(agent: Agent) -> AgentStatus:
    """Everything that matters now, on one page."""
    return AgentStatus.of(agent.status(), secrets_of(agent))


async def pause(agent: Agent, by: By, order: PauseOrder | None = None) -> AgentStatus:
    """Start no runs; looking and telling go on."""
    order = order or PauseOrder()
    await agent.pause(by=by, seconds=order.for_seconds, why=order.why)
    return await show_status(agent)


async def resume(agent: Agent, by: By) -> AgentStatus:
    """Let runs start again."""
    await agent.resume(by=by)
    return await show_status(agent)


async def confirm_host(agent: Agent, by: By, order: ConfirmOrder | None = None) -> AgentStatus:
    """Accept a state that was lost or is a copy as this host's own: it acts and tells again.

    Until then no token lets anybody in, so that only the UNIX socket takes this order."""
    order = order or ConfirmOrder()
    await agent.confirm_host(by=by, keep_tokens=order.keep_tokens)
    return await show_status(agent)


async def reload_config(agent: Agent, by: By) -> AgentStatus:
    """Read the configuration again; one that cannot be used changes nothing."""
    status = await agent.reload(by=by)
    return AgentStatus.of(status, secrets_of(agent))
