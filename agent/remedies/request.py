"""What the agent asks of a job: one line, which the job validates again itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from agent.core.model import Changes, Seconds
from agent.errors import Invalid
from agent.remedies.protocol import place_of


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """One run, as the agent asks for it. The job validates all of it again."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    run_id: str
    remedy: str
    #: Directories with remedies, the shipped one first.
    remedy_dirs: tuple[Path, ...]
    #: The remedy must still be exactly this.
    digest: str
    options: Mapping[str, Any]
    timeout: Seconds
    #: Where the socket, private data and temporary files live: a tmpfs, mode 0700.
    runtime_dir: Path
    preview: bool = False
    changes: Changes = Changes.SERVICE
    #: The values that `allow: configured` options take.
    configured: tuple[Any, ...] = ()
    #: Play its `undo.yml` instead: a fault of a drill has one.
    undo: bool = False


_REQUEST = TypeAdapter(JobRequest)


def write_request(request: JobRequest) -> bytes:
    return _REQUEST.dump_json(request, warnings=False) + b"\n"


def read_request(line: bytes) -> JobRequest:
    """Raises Invalid, which names the field."""
    try:
        request = _REQUEST.validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise Invalid(f"cannot read the request: {key}: {first['msg']}") from None
    if not 0 < request.timeout <= 7 * 86_400:
        raise Invalid("cannot read the request: timeout: more than 0 s, at most 7 days")
    place_of(request.runtime_dir, request.run_id)
    return request
