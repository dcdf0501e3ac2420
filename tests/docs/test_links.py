"""Links inside the documentation lead somewhere."""

from __future__ import annotations

import os
import re

import pytest

from tests.support.tracked import ROOT, pages

_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = _HEADING.findall(_FENCE.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


PAGES = pages()


@pytest.mark.parametrize(("path", "text"), PAGES, ids=[str(path) for path, _ in PAGES])
def test_links_resolve(path: os.PathLike[str], text: str) -> None:
    """Every link to a file names one that is there, and every anchor a heading of it."""
    broken = []
    for link in _LINK.findall(_FENCE.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / path).parent / name if name else ROOT / path
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target.read_text("utf-8"))):
            broken.append(link)
    assert broken == []


def test_every_page_is_reached_from_the_readme() -> None:
    """A newcomer finds every guide and decision by following links; generated and working pages may stand alone."""
    texts = {str(path): text for path, text in PAGES}
    seen, todo = set(), ["README.md"]
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        for link in _LINK.findall(_FENCE.sub("", texts.get(page, ""))):
            target = os.path.normpath(os.path.join(os.path.dirname(page), link.partition("#")[0]))
            if target in texts:
                todo.append(target)
            else:
                todo += [name for name in texts if os.path.dirname(name) == target]
    alone = {name for name in texts if name.startswith("docs/") and not name.startswith("docs/changes/")} - seen
    assert alone == set()
