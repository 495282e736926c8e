"""Is it alive, and is it ready?"""

from __future__ import annotations

from api.schemas.wire import Wire


class Health(Wire):
    """Alive, or ready."""

    status: str
