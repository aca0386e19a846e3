"""What the pages name exists: modules, names in them, files; and their Python imports run."""

import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("examples/*/README.md")),
]
FOLDERS = "flows|tasks|infra|fusion|tests|benchmarks|examples|docs"


def names_of(pages: list[Path], pattern: str) -> list[str]:
    return sorted({name for page in pages for name in re.findall(pattern, page.read_text(encoding="utf-8"))})


def exists(name: str) -> bool:
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            if find_spec(".".join(parts[:count])) is None:
                continue
        except ModuleNotFoundError:
            continue
        value = import_module(".".join(parts[:count]))
        for part in parts[count:]:
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True
    return False


@pytest.mark.parametrize("name", names_of(PAGES, r"\bbarycenter\.(?:flows|tasks|infra|fusion)(?:\.[A-Za-z_]\w*)*"))
def test_names_of_modules_exist(name):
    assert exists(name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_exist(page):
    text = page.read_text(encoding="utf-8")
    names = set(re.findall(rf"(?<![\w/.*{{<])((?:{FOLDERS})/[\w./-]*\w/?)(?![\w*-])", text))
    names |= {f"{page.parent.relative_to(ROOT)}/{name}" for name in re.findall(r"\]\((?!https?:)([\w./-]+)\)", text)}
    made_by_examples = re.compile(r"examples/[^/]+/(data|models|out)\b")
    assert not sorted(name for name in names if not (ROOT / name).exists() and not made_by_examples.match(name))


def test_python_imports_run():
    lines = [line.strip().split(";")[0] for page in PAGES for line in page.read_text(encoding="utf-8").splitlines()]
    imports = sorted({line for line in lines if re.match(r"(from barycenter\S* import|import barycenter)", line)})
    assert imports
    done = subprocess.run([sys.executable, "-c", "\n".join(imports)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
