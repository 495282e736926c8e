"""How one logs in before a check asks: a page's form, or JSON, with secrets from files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from agent.checks.peers import mask_url
from agent.checks.values import AbsolutePath
from agent.core.text import MASK
from agent.host.conditions import parse_condition
from agent.host.login import Login
from agent.host.secret_file import read_secret_file
from agent.host.url import Url, mask_query, parse_url


def _check_condition(text: str) -> str:
    parse_condition(text)
    return text


class SecretFile(BaseModel):
    """A value that is kept in a file of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: AbsolutePath = Field(
        description="A file of mode 0600 with the value and nothing else; a last newline is not "
        "part of it."
    )


def _check_login_url(text: str) -> str:
    if text.startswith("/") and not text.startswith("//"):
        parse_url(f"http://host{text}")
    else:
        parse_url(text)
    return text


def _mask_login_url(text: str) -> str:
    return mask_query(text) if text.startswith("/") else mask_url(text)


_Values = Annotated[
    Mapping[str, str | SecretFile],
    # What is written as it stands is secret; the name of a file is not.
    PlainSerializer(
        lambda values: {
            name: {"file": value.file} if isinstance(value, SecretFile) else MASK
            for name, value in values.items()
        },
        when_used="json",
    ),
]


class LoginOptions(BaseModel):
    """How one logs in: what is sent as a form, or as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[
        str, AfterValidator(_check_login_url), PlainSerializer(_mask_login_url, when_used="json")
    ] = Field(repr=False, description="Where: an address, or a path of the same site, `/login`.")
    form: _Values = Field(
        default_factory=dict,
        repr=False,
        description="Fields of the page's form; what it hides is sent as well.",
    )
    as_json: _Values = Field(
        default_factory=dict, alias="json", repr=False, description="Fields of a JSON object."
    )
    failed: Annotated[str, AfterValidator(_check_condition)] = Field(
        default="[STATUS] >= 400", description="The condition that is true when it did not work."
    )

    @model_validator(mode="after")
    def _check_one(self) -> LoginOptions:
        if bool(self.form) == bool(self.as_json):
            raise ValueError("needs exactly one of `form` and `json`")
        return self


def read_login(options: LoginOptions, url: Url) -> Login:
    """The log-in, its secrets read. Raises Unavailable or ConfigError for a file of no use."""
    values = {
        name: read_secret_file(value.file, f"`login.{name}`").removesuffix("\n")
        if isinstance(value, SecretFile)
        else value
        for name, value in {**options.form, **options.as_json}.items()
    }
    place = url.join(options.url)
    assert place is not None  # noqa: S101 - the configuration was checked
    return Login(url=place, values=values, as_json=bool(options.as_json))
