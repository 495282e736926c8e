"""What travels between the agent and its sender: one JSON document in, one line per result out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One message on its way to one route. Exactly one of `url` and `url_file` is set."""

    #: The notice's id; results come back under it.
    id: str
    route: str
    #: An Apprise URL.
    url: str | None = None
    #: A file with Apprise URLs, one a line; the sender reads it.
    url_file: str | None = None
    title: str = ""
    body: str = ""
    #: A `Status` of the core.
    severity: str = "warning"
    #: The same at every attempt.
    message_id: str = ""
    #: Messages with the same value reach the route in order: after one that is to be tried again,
    #: the later ones wait too. Empty: no order.
    order: str = ""


@dataclass(frozen=True, kw_only=True)
class DeliveryResult:
    """What became of one delivery."""

    id: str
    #: At least one service of the route took it.
    ok: bool
    #: Not ok, and another attempt may succeed without a change of the configuration.
    retry: bool = False
    #: Why not; with `ok`: which services of the route did not take it. Secrets are masked.
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one sender process is to do."""

    deliveries: tuple[Delivery, ...]
    #: Seconds that one service may take for one delivery.
    limit: float = 20.0


def encode_batch(batch: Batch) -> bytes:
    """The batch as one line of JSON."""
    return json.dumps(asdict(batch)).encode() + b"\n"


def decode_batch(line: bytes) -> Batch:
    """The batch of a line. Raises ValueError, TypeError or KeyError for anything else."""
    document = json.loads(line)
    return Batch(
        deliveries=tuple(Delivery(**fields) for fields in document["deliveries"]),
        limit=float(document.get("limit", Batch.limit)),
    )


def encode_result(result: DeliveryResult) -> str:
    """The result as one line of JSON."""
    return json.dumps(asdict(result)) + "\n"


def decode_result(line: bytes) -> DeliveryResult:
    """The result of a line. Raises ValueError, TypeError or KeyError for anything else."""
    fields: Mapping[str, Any] = json.loads(line)
    return DeliveryResult(
        id=str(fields["id"]),
        ok=fields["ok"] is True,
        retry=fields["retry"] is True,
        error=str(fields["error"]),
    )


def results_for(
    deliveries: Iterable[Delivery], *, retry: bool, error: str
) -> tuple[DeliveryResult, ...]:
    """The same failure for each of the deliveries."""
    return tuple(
        DeliveryResult(id=delivery.id, ok=False, retry=retry, error=error)
        for delivery in deliveries
    )
