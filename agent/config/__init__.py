"""The configuration: one YAML file and conf.d beside it, complete and valid."""

from __future__ import annotations

from agent.config.arm import arm
from agent.config.ladder import Configured
from agent.config.load import (
    VERSION,
    Config,
    LoadedCheck,
    Route,
    UrlValidator,
    load_config,
    load_config_errors,
)
from agent.config.options import (
    DEFAULT_REASONS,
    GENERAL_DEFAULTS,
    DigestOptions,
    MaintenanceOptions,
    PolicyOptions,
    RouteOptions,
)
from agent.config.schema import config_schema
from agent.config.show import describe_config, show_config

__all__ = [
    "DEFAULT_REASONS",
    "GENERAL_DEFAULTS",
    "VERSION",
    "Config",
    "Configured",
    "DigestOptions",
    "LoadedCheck",
    "MaintenanceOptions",
    "PolicyOptions",
    "Route",
    "RouteOptions",
    "UrlValidator",
    "arm",
    "config_schema",
    "describe_config",
    "load_config",
    "load_config_errors",
    "show_config",
]
