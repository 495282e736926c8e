"""The agent in memory keeps to what the API expects of the real one."""

from __future__ import annotations

import pytest
from agent_contract import AgentContract, Scene
from fake_agent import FakeAgent


class TestFakeAgent(AgentContract):
    @pytest.fixture
    def scene(self, agent: FakeAgent) -> Scene:
        return Scene(
            agent=agent,
            check="web",
            live="i2",
            ended="i1",
            run="r1",
            remedy="restart-service",
            options={"unit": "nginx.service"},
        )
