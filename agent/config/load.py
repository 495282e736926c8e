"""From files to a complete, valid configuration, or to every reason why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import RootModel

from agent.checks import CHECKS
from agent.checks.check import CheckOptions, CheckType
from agent.config.defaults import choose_defaults
from agent.config.ladder import Configured, LadderBuilder
from agent.config.options import (
    GENERAL_DEFAULTS,
    NAME,
    POLICY_FIELDS,
    SILENCE_ID,
    DigestOptions,
    MaintenanceOptions,
    PolicyOptions,
    PublicUrl,
    RouteOptions,
)
from agent.config.problems import Problems, suggest
from agent.core.model import CheckPolicy, Confirm, Maintenance, Mode, Policy, RoutePolicy, Status
from agent.documents import Node, read_document
from agent.errors import ConfigError
from agent.host.machine import has_systemd
from agent.remedies.catalog import Catalog

#: The only format there is; files that say nothing mean it.
VERSION = 1
TOP_LEVEL = (
    "version",
    "policy",
    "defaults",
    "checks",
    "routes",
    "maintenance",
    "digest",
    "public_url",
)
_SECTIONS = ("policy", "checks", "routes", "maintenance")

#: Why an Apprise URL cannot be used, or None.
UrlValidator = Callable[[str], str | None]


@dataclass(frozen=True, kw_only=True)
class LoadedCheck:
    """One check, complete."""

    type: CheckType
    #: An instance of `type.model` with every default filled in.
    options: CheckOptions
    policy: CheckPolicy


@dataclass(frozen=True, kw_only=True)
class Route:
    """One way to people."""

    name: str
    #: Exactly one of the two is not None.
    url: str | None = field(repr=False)
    url_file: Path | None
    policy: RoutePolicy


@dataclass(frozen=True, kw_only=True)
class Config:
    """A complete configuration: every default is filled in, every name is known."""

    policy: Policy
    #: Those that are configured, and the defaults in effect beside them.
    checks: Mapping[str, LoadedCheck]
    #: Names of checks that no file has.
    defaults: frozenset[str]
    routes: Mapping[str, Route]
    maintenance: Mapping[str, MaintenanceOptions]
    #: None: none is sent.
    digest: DigestOptions | None
    #: What the configuration names; options with `allow: configured` take nothing else.
    configured: frozenset[Configured]
    #: Those that were read, in order. None at all: hostmend only reports.
    files: tuple[Path, ...]
    public_url: str | None
    #: Keep a runner loaded.
    warm: bool
    #: (remedy, option): options whose values are never shown.
    hidden: frozenset[tuple[str, str]]
    #: As written, all files together, secrets included.
    raw: Mapping[str, Any] = field(repr=False)


class _PublicUrlOption(RootModel[PublicUrl]):
    pass


class _DefaultsOption(RootModel[bool]):
    pass


def load_config(
    path: Path,
    *,
    catalog: Catalog,
    types: Mapping[str, CheckType] = CHECKS,
    validate_url: UrlValidator | None = None,
) -> Config:
    """The configuration in `path` and in `conf.d/*.yml` beside it.

    A missing file is no error: without any file there are the defaults and the mode is `off`.
    Raises the first ConfigError in the order of files and lines.
    """
    config, errors = _load(path, catalog, types, validate_url)
    if config is None:
        raise errors[0]
    return config


def load_config_errors(
    path: Path,
    *,
    catalog: Catalog,
    types: Mapping[str, CheckType] = CHECKS,
    validate_url: UrlValidator | None = None,
) -> tuple[ConfigError, ...]:
    """Everything wrong with it, in the order of files and lines; empty when it can be used."""
    return _load(path, catalog, types, validate_url)[1]


def _load(
    path: Path,
    catalog: Catalog,
    types: Mapping[str, CheckType],
    validate_url: UrlValidator | None,
) -> tuple[Config | None, tuple[ConfigError, ...]]:
    documents: list[Node] = []
    broken: list[ConfigError] = []
    try:
        files = _find_files(path)
    except ConfigError as error:
        return None, (error,)
    for file in files:
        try:
            if (document := read_document(file)) is not None:
                documents.append(document)
        except ConfigError as error:
            broken.append(error)
    if broken:
        return None, tuple(broken)
    names = [str(file) for file in files]
    try:
        root = _merge(documents, str(path))
    except ConfigError as error:
        return None, (error,)

    problems = Problems(root, names)
    _check_top_level(root, problems)
    options = problems.validate(PolicyOptions, _section(root, "policy"), ("policy",))
    checks = dict(_read_checks(root, types, problems))
    written = {name: kind.name for name, (kind, _) in checks.items()}
    wanted = _read_defaults(root, problems)
    defaults = choose_defaults(wanted, written, types, systemd=has_systemd())
    for name, given in defaults.items():
        kind = types[given["type"]]
        checks[name] = (kind, _fill_defaults(kind, kind.model.model_validate(given)))
    ladders = LadderBuilder(remedies=catalog.remedies, broken=catalog.broken, problems=problems)
    loaded = {
        name: _complete_check(name, kind, written, ladders)
        for name, (kind, written) in checks.items()
    }
    _check_dependencies(loaded, _section(root, "checks").mapping or {}, problems)
    routes = _read_routes(root, path, validate_url, problems)
    maintenance = _read_maintenance(root, checks, problems)
    digest = _read_digest(root, problems)
    public_url = _read_public_url(root, problems)
    if errors := problems.sorted():
        return None, errors
    assert options is not None  # noqa: S101 - without errors every model was read
    configured = frozenset[Configured]().union(
        *(check.type.names(check.options) for check in loaded.values()),
        *(ladders.fixed_names(check.policy.ladder) for check in loaded.values()),
    )
    return Config(
        policy=_make_policy(
            options if files else options.model_copy(update={"mode": Mode.OFF}),
            loaded,
            routes,
            maintenance,
        ),
        checks=loaded,
        defaults=frozenset(defaults),
        routes=routes,
        maintenance=maintenance,
        digest=digest,
        configured=configured,
        files=files,
        public_url=public_url,
        warm=options.warm,
        hidden=frozenset(
            (remedy.name, option)
            for remedy in catalog.remedies.values()
            for option, known in remedy.options.items()
            if known.no_log
        ),
        raw=root.plain(),
    ), ()


def _find_files(path: Path) -> tuple[Path, ...]:
    beside = path.parent / "conf.d"
    try:
        there = sorted(beside.iterdir()) if beside.is_dir() else []
        main = (path,) if path.exists() else ()
    except OSError as error:
        raise ConfigError(
            f"cannot look for configuration files: {error.strerror}", file=str(error.filename)
        ) from error
    visible = [file for file in there if not file.name.startswith(".")]
    for file in visible:
        if file.suffix == ".yaml":
            raise ConfigError("cannot use this name: only *.yml is read here", file=str(file))
    return (*main, *(file for file in visible if file.suffix == ".yml"))


def _merge(documents: list[Node], main: str) -> Node:
    """One document of all: sections grow together, and nothing is defined twice."""
    merged: dict[str, Node] = {}
    for document in documents:
        if document.mapping is None:
            raise ConfigError(
                "must be a mapping that begins with `version: 1`",
                file=document.file,
                line=document.line,
            )
        version = document.mapping.get("version")
        if version is not None and (version.value != VERSION or type(version.value) is not int):
            raise ConfigError(
                "this hostmend reads `version: 1` only",
                file=version.file,
                line=version.line,
                key="version",
            )
        for key, node in document.mapping.items():
            earlier = merged.get(key)
            if earlier is None or earlier.value is None or key == "version":
                merged[key] = node
            elif key in _SECTIONS and node.value is None:
                continue
            elif key in _SECTIONS and node.mapping is not None and earlier.mapping is not None:
                for name, below in node.mapping.items():
                    if name in earlier.mapping:
                        raise _twice(below, earlier.mapping[name], f"{key}.{name}")
                merged[key] = Node(
                    value={**earlier.mapping, **node.mapping}, file=earlier.file, line=earlier.line
                )
            else:
                raise _twice(node, earlier, key)
    return Node(value=merged, file=documents[0].file if documents else main, line=1)


def _twice(node: Node, earlier: Node, key: str) -> ConfigError:
    return ConfigError(
        f"is defined twice: it stands in {earlier.file}:{earlier.line} too",
        file=node.file,
        line=node.line,
        key=key,
    )


def _check_top_level(root: Node, problems: Problems) -> None:
    for key in root.mapping or {}:
        if key not in TOP_LEVEL:
            problems.add((key,), f"is no key here; {suggest(key, TOP_LEVEL)}")


def _section(root: Node, key: str) -> Node:
    """A section that may be missing, or empty when all in it is commented out."""
    node = (root.mapping or {}).get(key)
    if node is None or node.value is None:
        return Node(value={}, file=root.file, line=node.line if node else root.line)
    return node


def _named_entries(root: Node, key: str, problems: Problems) -> Mapping[str, Node]:
    section = _section(root, key)
    if section.mapping is None:
        problems.add((key,), "must be a mapping from names to their keys")
        return {}
    for name in section.mapping:
        if not NAME.fullmatch(name):
            problems.add(
                (key, name),
                "cannot be a name: use small letters, digits, and `_`, `.`, `-` after the first",
            )
    return section.mapping


def _read_checks(
    root: Node, types: Mapping[str, CheckType], problems: Problems
) -> Mapping[str, tuple[CheckType, CheckOptions]]:
    checks: dict[str, tuple[CheckType, CheckOptions]] = {}
    for name, node in _named_entries(root, "checks", problems).items():
        trail = ("checks", name)
        kind = node.mapping.get("type") if node.mapping is not None else None
        if node.mapping is None:
            problems.add(trail, "must be a mapping with a `type`")
        elif kind is None:
            problems.add((*trail, "type"), f"is missing; {suggest('', types)}")
        elif not isinstance(kind.value, str) or kind.value not in types:
            problems.add(
                (*trail, "type"),
                f"there is no type of check `{kind.plain()}`; {suggest(str(kind.plain()), types)}",
            )
        else:
            found = types[kind.value]
            options = problems.validate(found.model, node, trail)
            if options is not None:
                checks[name] = (found, _fill_defaults(found, options))
    return checks


def _fill_defaults(kind: CheckType, options: CheckOptions) -> CheckOptions:
    """The configuration wins over the type's defaults, and those over the general ones."""
    own = CheckOptions.model_validate({"type": kind.name, **kind.defaults})
    defaults = {
        **GENERAL_DEFAULTS,
        **{key: value for key in kind.defaults if (value := getattr(own, key)) is not None},
    }
    return options.model_copy(
        update={key: value for key, value in defaults.items() if getattr(options, key) is None}
    )


def _complete_check(
    name: str, kind: CheckType, options: CheckOptions, ladders: LadderBuilder
) -> LoadedCheck:
    times, _, of = (options.confirm or "1 of 1").partition(" of ")
    durations = {
        key: getattr(options, key)
        for key in ("every", "timeout", "stable_for", "cool_down", "verify_for")
    }
    return LoadedCheck(
        type=kind,
        options=options,
        policy=CheckPolicy(
            name=name,
            **durations,
            confirm=Confirm(times=int(times), of=int(of)),
            depends_on=tuple(dict.fromkeys(options.depends_on)),
            ladder=ladders.build(name, kind, options),
            mode=options.mode,
            labels=options.labels,
        ),
    )


def _check_dependencies(
    checks: Mapping[str, LoadedCheck], written: Mapping[str, Node], problems: Problems
) -> None:
    for name, check in checks.items():
        for position, upstream in enumerate(check.options.depends_on):
            if upstream not in written:
                problems.add(
                    ("checks", name, "depends_on", position),
                    f"there is no check `{upstream}`; {suggest(upstream, written)}",
                )
    done: set[str] = set()
    for name in checks:
        if cycle := _find_cycle(name, checks, done):
            problems.add(
                ("checks", cycle[0], "depends_on"), f"goes in a circle: {' -> '.join(cycle)}"
            )


def _find_cycle(
    start: str, checks: Mapping[str, LoadedCheck], done: set[str]
) -> tuple[str, ...] | None:
    """A circle that `start` leads into and that no earlier start did, first name repeated."""
    way: list[str] = []
    open_: list[list[str]] = [[start]]
    cycle: tuple[str, ...] | None = None
    while open_:
        if not open_[-1]:
            open_.pop()
            if way:
                done.add(way.pop())
            continue
        name = open_[-1].pop(0)
        if name in way:
            cycle = cycle or (*way[way.index(name) :], name)
        elif name not in done and name in checks:
            way.append(name)
            open_.append(list(checks[name].policy.depends_on))
    return cycle


def _read_routes(
    root: Node, path: Path, validate_url: UrlValidator | None, problems: Problems
) -> Mapping[str, Route]:
    routes: dict[str, Route] = {}
    for name, node in _named_entries(root, "routes", problems).items():
        trail = ("routes", name)
        options = problems.validate(RouteOptions, node, trail)
        if options is None:
            continue
        if options.url and validate_url and (why := validate_url(options.url)):
            problems.add((*trail, "url"), why)
        routes[name] = Route(
            name=name,
            url=options.url,
            url_file=path.parent / options.url_file if options.url_file else None,
            policy=RoutePolicy(
                name=name,
                reasons=tuple(dict.fromkeys(options.reasons)),
                severity=Status(options.severity),
                labels=options.labels,
            ),
        )
    return routes


def _read_defaults(root: Node, problems: Problems) -> bool | None:
    node = (root.mapping or {}).get("defaults")
    if node is None or node.value is None:
        return None
    option = problems.validate(_DefaultsOption, node, ("defaults",))
    return option.root if option else None


def _read_maintenance(
    root: Node, checks: Mapping[str, tuple[CheckType, CheckOptions]], problems: Problems
) -> Mapping[str, MaintenanceOptions]:
    windows: dict[str, MaintenanceOptions] = {}
    known = {*(_section(root, "checks").mapping or {}), "*"}
    for name, node in _named_entries(root, "maintenance", problems).items():
        trail = ("maintenance", name)
        if SILENCE_ID.fullmatch(name):
            problems.add(trail, "cannot be a name: silences have such ids; begin it with a word")
        options = problems.validate(MaintenanceOptions, node, trail)
        if options is None:
            continue
        for position, check in enumerate(options.checks):
            if check not in known:
                problems.add(
                    (*trail, "checks", position),
                    f"there is no check `{check}`; {suggest(check, known)}",
                )
        wanted = options.labels.items()
        if wanted and not any(wanted <= check.labels.items() for _, check in checks.values()):
            problems.add((*trail, "labels"), "no check carries these labels")
        windows[name] = options
    return windows


def _read_digest(root: Node, problems: Problems) -> DigestOptions | None:
    node = (root.mapping or {}).get("digest")
    if node is None or node.value is None:
        return None
    return problems.validate(DigestOptions, node, ("digest",))


def _read_public_url(root: Node, problems: Problems) -> str | None:
    node = (root.mapping or {}).get("public_url")
    if node is None or node.value is None:
        return None
    option = problems.validate(_PublicUrlOption, node, ("public_url",))
    return option.root if option else None


def _make_policy(
    options: PolicyOptions,
    checks: Mapping[str, LoadedCheck],
    routes: Mapping[str, Route],
    maintenance: Mapping[str, MaintenanceOptions],
) -> Policy:
    fields: dict[str, Any] = {}
    for key, name in POLICY_FIELDS.items():
        value: Any = options
        for part in key.split("."):
            value = getattr(value, part)
        fields[name] = value
    return Policy(
        **fields,
        checks={name: check.policy for name, check in checks.items()},
        routes=tuple(route.policy for route in routes.values()),
        maintenance=tuple(
            Maintenance(
                name=name,
                schedule=window.make_schedule(),
                checks=window.checks,
                subjects=window.subjects,
                labels=window.labels,
                comment=window.comment,
            )
            for name, window in sorted(maintenance.items())
        ),
    )
