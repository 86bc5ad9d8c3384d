"""The report in a real browser: complete in itself, on a phone, for every reader."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from tasks.core.config.params import ReportParams, SelectParams
from tasks.report import report
from tasks.select import select
from tests.builders import CANDIDATES, CLASSES, build
from tests.integration.conftest import Browser

HOSTILE = "<script>alert(1)</script>"
IMAGE = '"><img src=x onerror=alert(2)>'


def make_page(root: Path, title: str = "Example", **changes: object) -> str:
    """The address of a report on made-up folders."""
    folders = build(root, **changes)  # type: ignore[arg-type]
    for name in ("select", "report"):
        (root / name).mkdir()
    select(SelectParams(), out=root / "select", **folders.select)
    report(ReportParams(title=title), out=root / "report", **folders.report)
    return (root / "report" / "report.html").as_uri()


def overflow(browser: Browser) -> int:
    """By how many pixels the page is wider than the window."""
    return int(browser.evaluate("return document.documentElement.scrollWidth - window.innerWidth"))


def test_page_asks_for_nothing_and_logs_no_error_when_opened(chromium: Browser, tmp_path: Path) -> None:
    page = make_page(tmp_path / "data")
    chromium.open(page)
    assert set(chromium.requests()) == {page}
    assert chromium.console_errors() == []


def test_browser_fixture_sees_requests_and_errors_when_a_page_has_them(
    chromium: Browser, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    page.write_text("<img src='missing.png'><script>console.error('oh')</script>", encoding="utf-8")
    chromium.open(page.as_uri())
    assert (tmp_path / "missing.png").as_uri() in chromium.requests()
    assert any("oh" in line for line in chromium.console_errors())


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_page_does_not_overflow_when_narrow_or_wide(chromium: Browser, tmp_path: Path, width: int) -> None:
    long = ["a_class_name_of_very_many_characters_without_a_single_blank_in_it", *CLASSES]
    chromium.open(make_page(tmp_path / "data", classes=long), width=width)
    assert chromium.evaluate("return window.innerWidth") == width
    assert overflow(chromium) <= 0


BROKEN = """
const walker = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT), broken = [];
while (walker.nextNode()) {
  const node = walker.currentNode;
  if (!node.parentElement.closest('.settings th, .legend')) continue;
  for (const word of node.data.matchAll(/[A-Za-z]{2,}/g)) {
    const range = document.createRange();
    range.setStart(node, word.index);
    range.setEnd(node, word.index + word[0].length);
    if (new Set([...range.getClientRects()].map(r => Math.round(r.top))).size > 1) broken.push(word[0]);
  }
}
return broken;
"""
OVERLAPPING = """
const boxes = [...document.querySelectorAll('#scatter-title ~ .dot-label')].map(e => e.getBoundingClientRect());
const over = (a, b) => a.left < b.right && b.left < a.right && a.top + 3 < b.bottom && b.top + 3 < a.bottom;
return [boxes.length, boxes.filter((a, i) => boxes.some((b, j) => i < j && over(a, b))).length];
"""


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_no_word_is_broken_and_no_label_covered_when_the_page_is(
    chromium: Browser, tmp_path: Path, width: int
) -> None:
    chromium.open(make_page(tmp_path / "data"), width=width)
    assert chromium.evaluate(BROKEN) == []
    labels, covered = chromium.evaluate(OVERLAPPING)
    assert labels == len(CANDIDATES)
    assert covered == 0


def test_page_shows_hostile_names_as_text_when_the_data_hold_them(chromium: Browser, tmp_path: Path) -> None:
    names = [HOSTILE, IMAGE, "a & b", "{{ 7 * 7 }}"]
    chromium.open(make_page(tmp_path / "data", title=HOSTILE, classes=names, hostile=HOSTILE + IMAGE))
    assert chromium.console_errors() == []
    assert chromium.evaluate("return document.querySelectorAll('script, [onerror]').length") == 0
    shown = chromium.evaluate("return document.body.textContent")
    assert all(name in shown for name in names)
    assert f"shirts/{HOSTILE}{IMAGE}broken.png" in shown


def test_page_is_accessible_when_opened(chromium: Browser, tmp_path: Path) -> None:
    chromium.open(make_page(tmp_path / "data"))
    levels = chromium.evaluate(
        "return [...document.querySelectorAll('h1, h2, h3')].map(h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    unnamed = "img:not([alt]), svg[role=img]:not([aria-labelledby]), th:not([scope]), html:not([lang])"
    assert chromium.evaluate("return document.querySelectorAll(arguments[0]).length", unnamed) == 0
    dangling = """return [...document.querySelectorAll('[aria-labelledby], a[href^="#"]')].filter(e =>
        !document.getElementById(e.getAttribute('aria-labelledby') || e.hash.slice(1))).length"""
    assert chromium.evaluate(dangling) == 0
    repeated = """const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
        return ids.filter((id, i) => ids.indexOf(id) !== i)"""
    assert chromium.evaluate(repeated) == []


CONTRAST = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const rgba = color => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = e => {
  for (; e; e = e.parentElement) {
    const color = rgba(getComputedStyle(e).backgroundColor);
    if (color[3] === 255) return color;
  }
  return [255, 255, 255];
};
return [...document.querySelectorAll('body *')]
  .filter(e => !e.closest('svg') && e.offsetParent)
  .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
  .map(e => {
    const [a, b] = [light(rgba(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), e.outerHTML.slice(0, 120)];
  })
  .filter(([ratio]) => ratio < 4.5);
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_when_the_scheme_is(chromium: Browser, tmp_path: Path, scheme: str) -> None:
    """WCAG 2.2, 1.4.3: at least 4.5 to 1."""
    chosen = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    chromium.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", chosen)
    chromium.open(make_page(tmp_path / "data"))
    dark = chromium.evaluate("return getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    assert chromium.evaluate(CONTRAST) == []


def test_labels_in_the_scatter_stand_apart_when_candidates_crowd(chromium: Browser, tmp_path: Path) -> None:
    chromium.open(make_page(tmp_path / "data"))
    boxes = chromium.evaluate("""return [...document.querySelectorAll('#trade-off .dot-label')].map(e => {
        const b = e.getBoundingClientRect(); return [e.textContent, b.left, b.top, b.right, b.bottom] })""")
    assert {name for name, *_ in boxes} == {made.name for made in CANDIDATES}
    for i, (_, left, top, right, bottom) in enumerate(boxes):
        for _, l2, t2, r2, b2 in boxes[i + 1 :]:
            assert right <= l2 or r2 <= left or bottom - 3 <= t2 or b2 - 3 <= top


def test_columns_keep_their_headers_when_the_bars_give_way(chromium: Browser, tmp_path: Path) -> None:
    chromium.open(make_page(tmp_path / "data"), width=390)
    rows = chromium.evaluate("""return [...document.querySelectorAll('.classes tr')].map(row =>
        [...row.cells].filter(c => c.offsetParent).map(c => Math.round(c.getBoundingClientRect().right)))""")
    assert len(rows) == len(CLASSES) + 2
    assert all(row == rows[0] and len(row) == 4 for row in rows)
