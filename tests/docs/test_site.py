"""`make docs`: the site builds without a warning, its links hold, nothing in it asks another host."""

import runpy
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

import barycenter
from tests.browser import DESKTOP, PHONE, chromium
from tests.docs.blocks import ROOT

BUILD = runpy.run_path(str(ROOT / "docs" / "build.py"))


@pytest.fixture(scope="module")
def site(tmp_path_factory, request):
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    assert BUILD["build"](folder) == 0
    return folder / "site"


def test_every_page_is_in_the_navigation(site):
    start = (site / "index.html").read_text()
    pages = [path.relative_to(site) for path in site.rglob("*.html") if "files" not in path.parts]
    missing = [
        str(page) for page in pages if page.name not in ("404.html", "index.html") and f'href="./{page}"' not in start
    ]
    assert missing == []


def test_pages_are_made_of_what_they_name(site):
    api = (site / "api.html").read_text()
    assert [name for name in barycenter.__all__ if f".{name}" not in api] == []
    assert '<h2 id="neighbors">' in (site / "commands.html").read_text().replace("\n", "")


@pytest.mark.parametrize("link", ["faq.html#no-such-anchor", "no-such-page.html", "assets/no-such.svg"])
def test_a_link_to_nothing_is_found(tmp_path, link):
    (tmp_path / "faq.html").write_text('<h2 id="here"></h2><a href="#here">good</a>')
    (tmp_path / "index.html").write_text(f'<a href="faq.html#here">good</a><a href="{link}">bad</a>')
    [line] = BUILD["broken_links"](tmp_path)
    assert line.startswith(f"index.html: {link} ")


def test_a_page_that_links_to_nothing_is_not_gathered():
    text = "[good](job.md#corpus) `[code](x.md)`\n\n    [code](x.md)\n"
    where = (Path("docs/faq.md"), Path("faq.md"), BUILD["pages"](), Path("unused"))
    assert BUILD["relinked"](text.replace(" `[code](x.md)`", ""), *where).startswith("[good](job.md#corpus)")
    with pytest.raises(SystemExit, match=r"docs/faq.md: nothing.md is not there"):
        BUILD["relinked"]("[bad](nothing.md)", *where)


@contextmanager
def served(folder):
    """The address of a folder."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_pages_fit_a_phone_and_ask_no_other_host(site):
    with served(site) as address, chromium() as browser:
        for name, (width, height), scheme in [
            ("index", PHONE, "light"),
            ("concepts", PHONE, "dark"),
            ("job", DESKTOP, "dark"),
        ]:
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            asked, said = [], []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.on("console", lambda message, said=said: said.append(f"{message.type}: {message.text}"))
            page.goto(f"{address}/{name}.html", wait_until="networkidle")
            assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0, name
            assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
            assert said == []
