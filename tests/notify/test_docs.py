"""What docs/notices.md promises."""

from __future__ import annotations

import re
from pathlib import Path

from agent.core.model import Reason
from agent.notify.client import validate_routes
from agent.notify.delivery import Delivery

TEXT = (Path(__file__).parents[2] / "docs" / "notices.md").read_text()


def test_every_reason_is_documented_with_the_first_line_it_gives():
    rows = re.findall(r"^\| `(\w+)` \| `\[(\w+)\]", TEXT, re.MULTILINE)
    assert {name for name, _ in rows} == set(Reason)
    assert all(tag in (name, "critical") for name, tag in rows)


async def test_every_url_of_the_documentation_can_be_used():
    urls = re.findall(r"`([a-z]+://[^`]+)` \|", TEXT)
    assert len(urls) == 5
    assert await validate_routes({url: Delivery(id="", route=url, url=url) for url in urls}) == {}
