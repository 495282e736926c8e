"""How long certificates are good, which `certificate` and `tls` share."""

from __future__ import annotations

from pydantic import Field

from agent.checks.values import Duration
from agent.core.units import format_duration
from agent.host.certificate import Certificate, write_date

_DAY = 86400.0

VALIDITY_CAUSES = {
    "expired": "A certificate has ended.",
    "expiring": "A certificate ends within the configured time.",
    "not-yet-valid": "A certificate has not begun yet, or this host's clock is wrong.",
}

#: The limits of those who write none.
EXPIRES_WARNING: Duration | None = Field(
    default=14 * _DAY, description="A certificate ends sooner than this: `14d`."
)
EXPIRES_CRITICAL: Duration | None = Field(
    default=3 * _DAY, description="A certificate ends sooner than this: `3d`."
)


def check_order(warning: float | None, critical: float | None) -> None:
    """Raises ValueError where the warning would come too late."""
    if warning is not None and critical is not None and warning < critical:
        raise ValueError("warning.expires must not be below critical.expires")


def judge_time(certificate: Certificate, limit: float | None, now: float) -> tuple[str, str] | None:
    """Cause and words for a certificate that ends too soon, or has not begun; else None.

    `now`: seconds since 1970.
    """
    if certificate.ends <= now:
        ago = format_duration(now - certificate.ends)
        return "expired", f"ended {ago} ago, at {write_date(certificate.ends)}"
    if certificate.begins > now:
        ahead = format_duration(certificate.begins - now)
        return "not-yet-valid", f"begins in {ahead}, at {write_date(certificate.begins)}"
    if limit is not None and certificate.ends - now < limit:
        left = format_duration(certificate.ends - now)
        return "expiring", f"ends in {left}, at {write_date(certificate.ends)}"
    return None
