"""Jobs as they stand now, with what came of those that were sent once more, and the books that they are pages of."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from msgspec import structs

from comfyload.record.lock import alone_in
from comfyload.record.model import AgainOf, Record
from comfyload.web.newest import MOST_BOOKS, Newest
from comfyload.web.states import View
from tests.support.dashboard import Tab, page
from tests.unit.judge_runs import failed, job, manifest
from tests.unit.test_web_follow import caught_up, sent
from tests.unit.test_web_results import made


def of_book(record: Record, book: int) -> Record:
    return structs.replace(record, book=book)


def books_of(path: Path, count: int) -> Path:
    """Books of two pages each; the second page of each third book failed."""
    lines = []
    for book in range(count):
        bad = book % 3 == 0
        lines += [of_book(job(2 * book, float(book), 1.0), book)]
        lines += [of_book((failed if bad else job)(2 * book + 1, float(book), 1.0), book)]
    return made(path, lines, manifest(2 * count))


def test_a_book_stands_as_the_worst_of_its_pages_and_trouble_comes_first(tmp_path: Path) -> None:
    newest = Newest(View(caught_up(books_of(tmp_path / "run", 30))), {})
    number, first = newest.books()
    assert number == 30 and len(first) == MOST_BOOKS
    assert [book.book for book in first] == [27, 24, 21, 18, 15, 12, 9, 6, 3, 0, 29, 28]
    assert [book.badge for book in first[9:]] == ["attention", "done", "done"]
    one = newest.book(3)
    assert one is not None and (one.badge, one.pages, one.counts) == ("attention", 2, {"done": 1, "attention": 1})
    assert newest.book(99) is None
    assert newest.failed(3) == [7] and newest.failed(1) == [] and len(newest.failed()) == 10


def test_pages_that_have_not_ended_are_of_their_book(tmp_path: Path) -> None:
    run = manifest(8, end=None, ended_utc=None)
    run.plan = structs.replace(run.plan, pages=4)
    made(tmp_path / "run", [sent(4, 0.0), sent(5, 0.0), of_book(job(4, 0.0, 1.0), 1), sent(6, 0.0)], run)
    with alone_in(tmp_path / "run"):
        newest = Newest(View(caught_up(tmp_path / "run")), {})
    one = newest.book(1)
    assert one is not None and (one.badge, one.pages, one.counts) == ("pending", 3, {"done": 1, "pending": 2})


def test_a_job_that_was_sent_once_more_stands_as_it_did_then(tmp_path: Path) -> None:
    view = View(caught_up(books_of(tmp_path / "run", 4)))
    newest = Newest(view, {1: "done", 7: "rendering", 2: "attention", 99: "done"})
    assert newest.failed() == [2] and view.counts()["attention"] == 2, "what was measured stays"
    badges = {book.book: book.badge for book in newest.books()[1]}
    assert badges == {0: "done", 1: "attention", 2: "done", 3: "rendering"}


def test_a_run_without_books_has_none(tmp_path: Path) -> None:
    assert Newest(View(caught_up(made(tmp_path / "run", [job(0, 0.0, 1.0)], manifest(1)))), {}).books() == (0, [])


async def newer(tab: Tab, number: int) -> Any:
    """The next state of that watch."""
    while (frame := await tab.next()).get("watch") != number:
        pass
    return frame["data"]


def test_retry_all_is_offered_until_all_are_mended(tmp_path: Path) -> None:
    async def main() -> None:
        async with page(tmp_path) as found, found.tab() as tab:
            seen = (await tab.watch(1, "run", run="book", book=3))["data"]
            assert seen["actions"] == ["retry_all"] and seen["needing"] == 2
            assert seen["book"]["badge"] == "attention" and seen["books"]["count"] == 4
            assert [chip["key"] for chip in seen["chips"] if chip["on"]] == ["3"]

            whose = manifest(2, again_of=AgainOf(run_id=run.run_id, indexes=[1, 7], pages=2))
            made(tmp_path / "runs" / "book-again-1", [job(0, 0.0, 1.0), failed(1, 0.0, 1.0)], whose)
            half = (await tab.watch(2, "run", run="book", book=0, text=""))["data"]
            while not half["again"]:
                half = await newer(tab, 2)
            assert half["needing"] == 1 and half["book"]["badge"] == "done" and half["actions"] == ["retry_all"]
            assert half["counts"]["attention"] == 2

            last = manifest(
                1, again_of=AgainOf(run_id=run.run_id, indexes=[7], pages=2), started_utc="2026-12-01T00:00:00+00:00"
            )
            made(tmp_path / "runs" / "book-again-2", [job(0, 0.0, 1.0)], last)
            async with found.tab() as other:
                mended = (await other.watch(1, "run", run="book"))["data"]
                while len(mended["again"]) < 2:
                    mended = await newer(other, 1)
                assert mended["needing"] == 0 and mended["actions"] == []

    run = manifest(8)
    books_of(tmp_path / "runs" / "book", 4)
    asyncio.run(main())


def test_what_is_asked_of_a_book_is_its_failed_pages(tmp_path: Path) -> None:
    async def main() -> None:
        async with page(tmp_path) as found:
            mended = await found.act("runs/book/again", {"jobs": "failed", "book": 1})
            assert mended.status == 409 and "no page of the book needs" in mended.value["error"]
            for odd in ("x", 1.5, [1]):
                assert (await found.act("runs/book/again", {"jobs": "failed", "book": odd})).status == 400, odd

    books_of(tmp_path / "runs" / "book", 4)
    asyncio.run(main())
