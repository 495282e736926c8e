"""What checks of other programs and hosts share: addresses as they are written, and blame."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, PlainSerializer

from agent.core.text import MASK
from agent.host.connection import Failure
from agent.host.routes import find_own_fault
from agent.host.url import parse_url, read_address, read_host

#: Of `timeout`, for asking; the rest is for finding out whose fault it is.
SHARE = 0.8
#: Longest wait for the reference, in seconds and as a share of `timeout`.
_REFERENCE_SECONDS, _REFERENCE_SHARE = 2.0, 0.1


def _check_address(text: str) -> str:
    read_address(text)
    return text


def _check_port_too(text: str) -> str:
    if read_address(text)[1] is None:
        raise ValueError(f"{text!r} needs a port: write for example 192.0.2.1:53")
    return text


def _check_url(text: str) -> str:
    parse_url(text)
    if "#" in text:
        raise ValueError("must end before the `#`: what follows it is never sent")
    return text


def mask_url(text: str) -> str:
    """As it is written, unless it holds a secret."""
    url = parse_url(text)
    return str(url) if url.user is not None or MASK in str(url) else text


def _check_host(text: str) -> str:
    """A host as a check names it. Raises ValueError with the way out."""
    try:
        return read_host(text)
    except ValueError as error:
        raise ValueError(
            f"{text!r} is neither a name that DNS knows nor an address: "
            "write for example db.example, 127.0.0.1 or ::1"
        ) from error


def read_reference(text: str | None) -> tuple[str, int] | None:
    """Address and port of a `reference` that was checked."""
    if text is None:
        return None
    address, port = read_address(text)
    return address, port or 0


#: An http:// or https:// address; shown without its secrets.
WebUrl = Annotated[
    str,
    AfterValidator(_check_url),
    PlainSerializer(mask_url, return_type=str, when_used="json"),
]
#: A name or an address, without a port.
HostName = Annotated[str, AfterValidator(_check_host)]
#: An address with or without a port.
Address = Annotated[str, AfterValidator(_check_address)]
#: An address with its port.
Reference = Annotated[str, AfterValidator(_check_port_too)]
#: The option that every check of other hosts has.
REFERENCE = Field(
    default=None,
    description="Address and TCP port of another host, `192.0.2.1:53`: while it does not "
    "answer either, this host counts as offline.",
)


def name_peer(host: str, port: int) -> str:
    """`db.example:5432`, `[::1]:80`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reference_seconds(timeout: float | None) -> float:
    """How long a reference is waited for."""
    return min(_REFERENCE_SECONDS, (timeout or _REFERENCE_SECONDS) * _REFERENCE_SHARE)


async def find_blame(reference: str | None, timeout: float | None, failure: Failure) -> str:
    """Why this host is to blame for a failure, and not the other one; empty when it is not."""
    return await find_own_fault(failure, read_reference(reference), reference_seconds(timeout))
