"""Sites for the check of that type."""

from __future__ import annotations

from audit_scene import serve as serve
