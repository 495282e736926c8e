"""Forms of HTML: where one is sent, and what it holds that nobody sees."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass(kw_only=True)
class Form:
    """One form."""

    #: As it is written; empty: the page's own address.
    action: str = ""
    #: Hidden inputs with their values, the tokens against forged requests among them.
    hidden: dict[str, str] = field(default_factory=dict)
    #: The names of all its inputs.
    names: set[str] = field(default_factory=set)


class _Finder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.forms: list[Form] = []
        self._within = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attributes}
        if tag == "form":
            self.forms.append(Form(action=told.get("action", "").strip()))
            self._within = True
        elif tag in ("input", "button", "select", "textarea") and self._within:
            form, name = self.forms[-1], told.get("name", "")
            if name:
                form.names.add(name)
                if told.get("type", "").lower() == "hidden":
                    form.hidden[name] = told.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._within = False


def find_form(html: str, names: Collection[str]) -> Form | None:
    """The form that has most inputs of these names; None where none has any."""
    finder = _Finder()
    finder.feed(html)
    best = max(finder.forms, key=lambda form: len(form.names & set(names)), default=None)
    return best if best is not None and best.names & set(names) else None
