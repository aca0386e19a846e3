"""The page in a real browser, whatever the texts hold."""

import pytest

from barycenter.tasks.report.rendering import html
from tests.browser import DESKTOP, PHONE, chromium, opened

from .test_page import HOSTILE, hostile_everywhere


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_console_errors_and_nothing_beside_the_window(browser, report, samples, images, tmp_path, size, scheme):
    path = tmp_path / "report.html"
    path.write_text(html(report, samples, images), encoding="utf-8")
    result = opened(browser, path, size, scheme)
    assert result.said == []
    assert result.asked == []
    assert result.overflow <= 0
    broken = result.page.evaluate("() => [...document.images].filter(i => i.complete && !i.naturalWidth).length")
    assert broken == 0


def test_hostile_texts_do_nothing(browser, report, samples, images, tmp_path):
    for number, text in enumerate(HOSTILE):
        path = tmp_path / f"{number}.html"
        hostile = hostile_everywhere(report, text)
        hostile["probe"]["candidates"][text] = {"complete": 0.5, text: 0.4}
        page = html(hostile, hostile_everywhere(samples, text), images)
        path.write_text(page, encoding="utf-8")
        result = opened(browser, path, PHONE)
        assert result.said == []
        assert result.asked == []
        assert result.overflow <= 0, text[:40]
        assert result.page.evaluate("() => document.scripts.length") == 0
        result.page.close()
