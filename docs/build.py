"""Builds the site of these pages: ``python docs/build.py``, ``make docs``.

Pages and what they link to are gathered in one folder, because README.md, CHANGELOG.md, the examples and the results
lie outside docs/. Zensical makes the site of them; every warning is an error. Then all links and anchors of the
finished pages are checked.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
WORK, SITE = ROOT / "out" / "site", ROOT / "site"
_LINK = re.compile(r"(\]\()([\w./-]+)((?:#[\w-]+)?\))")
_FENCE = re.compile(r"^\s*```")


def main() -> int:
    """Builds the site and puts it in site/; returns the exit code."""
    code = build(WORK)
    if code == 0:
        shutil.rmtree(SITE, ignore_errors=True)
        (WORK / "site").rename(SITE)
        print(f"the site is in {SITE}")
    return code


def build(folder: Path) -> int:
    """Gathers the pages in ``folder``, makes ``folder / "site"`` of them and checks it; returns the exit code."""
    shutil.rmtree(folder, ignore_errors=True)
    gather(folder / "pages")
    write(folder / "zensical.toml", "".join(settings(folder / "pages")))
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(folder / "zensical.toml")]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": path}, check=False)
    broken = broken_links(folder / "site") if done.returncode == 0 else []
    for line in broken:
        print(line, file=sys.stderr)
    return done.returncode or int(bool(broken))


def settings(gathered: Path) -> Iterator[str]:
    """The lines of zensical.toml, without the places of pages that are not there."""
    for line in (ROOT / "docs" / "zensical.toml").read_text(encoding="utf-8").splitlines(keepends=True):
        page = re.search(r'"([\w/-]+\.md)"', line)
        if page is None or (gathered / page[1]).is_file():
            yield line


def pages() -> dict[Path, Path]:
    """Where each page of the repository is in the site, both relative."""
    found = {Path("README.md"): Path("index.md"), Path("CONTRIBUTING.md"): Path("contributing.md")}
    if (ROOT / "CHANGELOG.md").is_file():
        found[Path("CHANGELOG.md")] = Path("changelog.md")
    for path in sorted(ROOT.glob("docs/*.md")):
        found[path.relative_to(ROOT)] = Path(path.name)
    for path in sorted(ROOT.glob("examples/*/README.md")):
        found[path.relative_to(ROOT)] = Path("examples", f"{path.parent.name}.md")
    return found


def gather(folder: Path) -> None:
    """Writes all pages to ``folder``, with the files that they link to."""
    there = pages()
    for source, target in there.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        write(folder / target, relinked(text, source, target, there, folder))
    shutil.copytree(ROOT / "docs" / "assets", folder / "assets")


def relinked(text: str, source: Path, target: Path, there: dict[Path, Path], folder: Path) -> str:
    """The page with its links to files as they are in the site."""

    def replaced(match: re.Match[str]) -> str:
        before, name, after = match.groups()
        linked = Path(os.path.normpath(source.parent / name))
        if not (ROOT / linked).exists():
            raise SystemExit(f"{source}: {name} is not there")
        return f"{before}{os.path.relpath(placed(linked, there, folder), target.parent)}{after}"

    lines, fenced = [], False
    for line in text.splitlines():
        fenced ^= bool(_FENCE.match(line))
        code = fenced or line.startswith("    ")
        lines.append(line if code else _LINK.sub(replaced, line))
    return "\n".join(lines) + "\n"


def placed(linked: Path, there: dict[Path, Path], folder: Path) -> Path:
    """Where a file that a page links to is in the site; it is copied there if it is no page."""
    if linked in there:
        return there[linked]
    if (ROOT / linked / "README.md").is_file() and linked / "README.md" in there:
        return there[linked / "README.md"]
    if (ROOT / linked).is_dir():
        listing = Path("files", linked, "index.md")
        write(folder / listing, "\n".join(list_folder(linked, there, folder)))
        return listing
    target = Path(linked.name) if linked.parent == Path("docs") else Path("files", linked)
    (folder / target).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / linked, folder / target)
    return target


def list_folder(linked: Path, there: dict[Path, Path], folder: Path) -> Iterator[str]:
    """A page of the files of a folder that git knows."""
    yield f"# {linked}\n"
    listed = subprocess.run(["git", "ls-files", linked], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if (ROOT / name).suffix != ".py" or "examples" in linked.parts:
            at = placed(Path(name), there, folder)
            yield f"- [{Path(name).relative_to(linked)}]({os.path.relpath(at, Path('files', linked))})"


def write(path: Path, text: str) -> None:
    """Writes a text file and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


class _Page(HTMLParser):
    """What a page links to, and its anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = {"", "__skip"}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        values = dict(attrs)
        self.anchors |= {values[name] or "" for name in ("id", "name") if name in values}
        self.links |= {values[name] or "" for name in ("href", "src") if name in values}


def broken_links(site: Path) -> list[str]:
    """Every link within the site to a page, file or anchor that is not there, and every request to another host."""
    read = {}
    for path in sorted(site.rglob("*.html")):
        read[path.resolve()] = page = _Page()
        page.feed(path.read_text(encoding="utf-8"))
    found = []
    for path, page in read.items():
        if path.name == "404.html":
            continue
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            linked = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            linked = linked / "index.html" if linked.is_dir() else linked
            if not linked.is_file():
                found.append(f"{path.relative_to(site.resolve())}: {link} is not there")
            elif linked in read and unquote(parts.fragment) not in read[linked].anchors:
                found.append(f"{path.relative_to(site.resolve())}: {link} has no such anchor")
    return found


if __name__ == "__main__":
    raise SystemExit(main())
