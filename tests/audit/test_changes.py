"""What changed since the audit before, and under which subject it is told of."""

from __future__ import annotations

import json
from collections.abc import Iterable

from audit_scene import Run, Serve, page
from hypothesis import given
from hypothesis import strategies as st

from agent.audit.changes import (
    ALONE,
    MENDED_FOR,
    MOST_FINE,
    MOST_GROUPS,
    MOST_KEPT,
    MOST_SINGLE,
    Book,
    Change,
    compare,
    dump_book,
    hash_address,
    load_book,
    remember,
)
from agent.audit.plan import Known
from agent.audit.result import Defect, Kind, dump_audit, load_audit

SITE = "https://shop.example/"


def missing(*names: str, kind: Kind = Kind.MISSING) -> list[Defect]:
    return [
        Defect(kind=kind, target=f"{SITE}{name}", status=kind.status, why="404") for name in names
    ]


def audit(
    book: Book, defects: Iterable[Defect], *, now: float, fine: Iterable[str] = (), complete=True
) -> Change:
    return compare(book, defects, fine, site=SITE, now=now, complete=complete)


def subjects(change: Change) -> dict[str, list[str]]:
    """Subject -> names of its targets."""
    return {
        subject: sorted(change.defects[n].target.removeprefix(SITE) for n in numbers)
        for subject, numbers in change.groups.items()
    }


def test_the_first_audit_knows_no_before() -> None:
    change = audit(Book(), missing("a"), now=1.0)
    assert (change.defects[0].new, change.defects[0].since) == (True, None)
    assert change.book.at == 1.0


def test_a_defect_is_new_once() -> None:
    first = audit(Book(), [], now=1.0, fine=[f"{SITE}a"])
    second = audit(first.book, missing("a"), now=2.0)
    third = audit(second.book, missing("a", "b"), now=3.0)
    assert [(d.new, d.since, d.regressed) for d in second.defects] == [(True, 2.0, True)]
    assert [(d.new, d.since, d.regressed) for d in third.defects] == [
        (False, 2.0, False),
        (True, 3.0, False),
    ]


def test_a_few_are_told_of_one_by_one_and_many_together() -> None:
    few = [f"p{n}" for n in range(ALONE)]
    change = audit(Book(), missing(*few), now=1.0)
    assert subjects(change) == {f"{SITE}{name}": [name] for name in few}
    many = [f"q{n}" for n in range(1000)]
    change = audit(change.book, missing(*few, *many), now=2.0)
    assert subjects(change) == {
        **{f"{SITE}{name}": [name] for name in few},
        f"{SITE}*": sorted(many),
    }


def test_many_that_come_later_are_told_of_anew_while_the_first_are_there() -> None:
    first = [f"a{n}" for n in range(5)]
    later = [f"b{n}" for n in range(5)]
    change = audit(Book(), missing(*first), now=1.0)
    change = audit(change.book, missing(*first, *later), now=2.0)
    assert subjects(change) == {f"{SITE}*": first, f"{SITE}* (2)": later}
    # A problem keeps its subject until it is over, and a while longer.
    change = audit(change.book, missing(*later), now=3.0)
    assert subjects(change) == {f"{SITE}* (2)": later}
    assert change.book.mended == {f"{SITE}*": 3.0}
    change = audit(change.book, missing(*later, *first), now=4.0)
    assert subjects(change) == {f"{SITE}* (2)": later, f"{SITE}* (3)": first}
    change = audit(change.book, [], now=5.0)
    change = audit(change.book, missing(*first), now=5.0 + MENDED_FOR)
    assert subjects(change) == {f"{SITE}*": first}


def test_what_is_mended_is_reported_as_fine_for_a_while() -> None:
    change = audit(Book(), missing("a"), now=1.0)
    change = audit(change.book, [], now=2.0)
    assert change.book.mended == {f"{SITE}a": 2.0}
    change = audit(change.book, [], now=3.0)
    assert change.book.mended == {f"{SITE}a": 2.0}
    # The same target is the same problem again.
    again = audit(change.book, missing("a"), now=4.0)
    assert subjects(again) == {f"{SITE}a": ["a"]}
    assert again.book.mended == {}
    assert audit(change.book, [], now=2.0 + MENDED_FOR).book.mended == {}


def test_two_kinds_of_defect_of_one_target_are_one_subject() -> None:
    defects = [*missing("a", kind=Kind.SLOW), *missing("a", kind=Kind.LARGE)]
    assert subjects(audit(Book(), defects, now=1.0)) == {f"{SITE}a": ["a", "a"]}


def test_what_is_mended_is_said_once() -> None:
    change = audit(Book(), missing("a", "b"), now=1.0)
    change = audit(change.book, missing("b"), now=2.0)
    assert change.fixed == (f"missing {SITE}a",)
    change = audit(change.book, missing("b"), now=3.0)
    assert change.fixed == ()


def test_what_was_not_seen_is_as_it_was_known() -> None:
    change = audit(Book(), missing("a", "b", "c"), now=1.0, fine=[f"{SITE}x"])
    change = audit(change.book, missing("b", "x"), now=2.0, fine=[f"{SITE}c"], complete=False)
    assert set(subjects(change)) == {f"{SITE}a", f"{SITE}b", f"{SITE}x"}
    assert subjects(change)[f"{SITE}a"] == []
    assert change.fixed == (f"missing {SITE}c",)
    assert change.book.fine == {hash_address(f"{SITE}{name}") for name in ("c",)}
    assert next(d for d in change.defects if d.target.endswith("x")).regressed


def test_that_it_lets_nobody_in_says_something_only_where_it_did_before() -> None:
    blocked = missing("a", kind=Kind.BLOCKED)
    assert audit(Book(), blocked, now=1.0).defects == ()
    first = audit(Book(), [], now=1.0, fine=[f"{SITE}a"])
    change = audit(first.book, blocked, now=2.0)
    assert subjects(change) == {f"{SITE}a": ["a"]}
    # It is still so at the next audit, though the one before did not see it well.
    again = audit(change.book, blocked, now=3.0)
    assert subjects(again) == {f"{SITE}a": ["a"]}


@given(st.lists(st.sets(st.integers(0, 60)), min_size=1, max_size=12))
def test_there_are_never_many_subjects_and_each_defect_has_one(rounds: list[set[int]]) -> None:
    book = Book()
    told: dict[str, str] = {}
    for now, broken in enumerate(rounds):
        defects = missing(*(f"p{n}" for n in sorted(broken)))
        change = audit(book, defects, now=float(now))
        assert len(change.groups) <= MOST_SINGLE + MOST_GROUPS
        grouped = [n for numbers in change.groups.values() for n in numbers]
        assert sorted(grouped) == list(range(len(defects)))
        where = {
            change.defects[n].key: subject for subject, ns in change.groups.items() for n in ns
        }
        for key, subject in where.items():
            assert told.get(key, subject) == subject
        # Whatever is new has a subject that nobody was told of, while there are any.
        groups = {subject for subject in told.values() if subject.startswith(f"{SITE}*")}
        if any(defect.new for defect in change.defects) and len(groups) < MOST_GROUPS:
            assert set(where.values()) - set(told.values())
        told, book = where, change.book


def test_a_book_travels_as_json_and_may_be_lost() -> None:
    change = audit(Book(), missing("a", "b"), now=1.0, fine=[f"{SITE}{n}" for n in range(99)])
    book = audit(change.book, missing("a"), now=2.0, fine=[f"{SITE}x"]).book
    assert load_book(json.loads(json.dumps(dump_book(book)))) == book
    for value in (None, [], {"format": 2}, {"format": 1, "defects": {"a": 1}}, "x", 5):
        assert load_book(value) == Book()


def test_a_book_has_an_end_and_what_it_knows_stays_known() -> None:
    names = [f"p{n:05}" for n in range(MOST_KEPT + 50)]
    change = audit(Book(), missing(*names), now=1.0, fine=[f"{SITE}{n}" for n in range(20_000)])
    assert len(change.defects) == len(change.book.defects) == MOST_KEPT
    assert len(change.book.fine) == MOST_FINE
    again = audit(change.book, missing(*reversed(names)), now=2.0)
    assert not any(defect.new for defect in again.defects)
    assert list(again.groups) == list(change.groups)


async def test_a_result_is_a_book_too(serve: Serve, run: Run) -> None:
    site = await serve({"/": page('<a href="/a">x</a><a href="/b">x</a>'), "/b": page("ok")})
    earlier = load_audit(dump_audit(await run(site)))
    site.answers["/a"] = site.answers.pop("/b")
    later = await run(site)
    change = compare(
        remember(earlier), later.defects, [], site=site.url, now=later.began, complete=True
    )
    (defect,) = change.defects
    assert (defect.target, defect.new, defect.regressed) == (f"{site.root}/b", True, True)
    assert change.fixed == (f"missing {site.root}/a",)


# Suppressions


async def test_what_is_known_counts_no_more_until_its_time_is_over(serve: Serve, run: Run) -> None:
    site = await serve({"/": page('<a href="/old/a">x</a><a href="/b">x</a>')})
    book: dict[str, object] = {}

    async def audit_with(*known: Known):
        audit = await run(site, known=known, order={"book": dict(book)})
        book.update(audit.book)
        return audit

    known = Known(target="/old/**", reason="moved in June", until=9e9)
    audit = await audit_with(known)
    assert [d.target for d in audit.found] == [f"{site.root}/b"]
    assert [d.known for d in audit.defects] == ["", "moved in June"]
    assert list(audit.groups) == [f"{site.root}/b"]
    # Now that the time is over, it is news.
    audit = await audit_with(Known(target="/old/**", reason="moved in June", until=1.0))
    assert {d.target: d.lapsed for d in audit.new} == {f"{site.root}/old/a": "moved in June"}
    # Left out by its kind, or because other pages refer to it.
    for other in (
        Known(target="/old/**", reason="x", until=9e9, kinds=("error",)),
        Known(target="/old/**", reason="x", until=9e9, page="/else"),
        Known(target="/older/**", reason="x", until=9e9),
    ):
        assert len((await audit_with(other)).found) == 2
    for same in (
        Known(target=f"{site.root}/old/*", reason="x", until=9e9, kinds=("missing", "error")),
        Known(target="/old/a", reason="x", until=9e9, page="/"),
    ):
        assert len((await audit_with(same)).found) == 1
