"""The tests that touch Ray and Prefect, under other versions of them: ``python -m tests.versions [ray==2.55.0 ...]``.

Each version lies in an environment of its own, ``.venv-versions/<package>-<version>``, in front of everything that
``.venv`` has. By default the oldest and the newest of the ranges in pyproject.toml are run. The last line is JSON.
"""

import json
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RANGES = {"ray": ("2.44.1", "2.60.0"), "prefect": ("3.7.8", "3.9.1")}
"""Oldest and newest version that is tested; the bounds of pyproject.toml."""

TESTS = {
    "ray": ["tests/infra/ray", "tests/infra/dispatch", "tests/flows/test_pipeline.py", "tests/chaos"],
    "prefect": ["tests/flows", "tests/infra/storage/test_credentials.py"],
}


def environment(package: str, version: str) -> Path:
    """The Python of an environment with that version in front."""
    folder = ROOT / ".venv-versions" / f"{package}-{version}"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        # That of .venv is newer.
        subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "setuptools"], check=True)
    ours = next((ROOT / ".venv" / "lib").glob("python*/site-packages"))
    theirs = next((folder / "lib").glob("python*/site-packages"))
    extra = "ray[default]" if package == "ray" else package
    (theirs / "barycenter.pth").write_text(f"import site; site.addsitedir({str(ours)!r})\n")
    install = [python, "-m", "pip", "install", "--quiet", f"{extra}=={version}"]
    subprocess.run([*install, "--no-deps", "--ignore-installed"], check=True)
    subprocess.run(install, check=True)  # what this version needs and that of .venv does not
    return python


def run(package: str, version: str) -> dict[str, object]:
    """Runs the package's tests; the last line of pytest, and whether all passed."""
    python = environment(package, version)
    found = subprocess.run(
        [python, "-c", f"import {package}; print({package}.__version__)"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert found == version, f"{package} {found} is imported, not {version}"
    command = [python, "-m", "pytest", "-q", "--no-header", "--durations=0", "-p", "no:cacheprovider", *TESTS[package]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    sys.stderr.write("\n".join([f"{package} {version}", *failed, done.stdout.splitlines()[-1]]) + "\n")
    return {"package": package, "version": version, "passed": done.returncode == 0, "failed": failed[:20]}


def main() -> None:
    """Prints what passed; exit 1 where something did not."""
    asked = [tuple(word.split("==")) for word in sys.argv[1:]]
    chosen = asked or [(package, version) for package, versions in RANGES.items() for version in versions]
    results = [run(package, version) for package, version in chosen]
    print(json.dumps(results))
    raise SystemExit(not all(result["passed"] for result in results))


if __name__ == "__main__":
    main()
