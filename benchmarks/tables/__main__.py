"""Fills the tables of every page; with ``--check`` only says which pages differ, and ends with 1 if one does."""

import sys

from benchmarks.tables import PAGES, changed, filled


def main(check: bool) -> int:
    pages = changed()
    for page in pages:
        print("differs:" if check else "written:", page.name)
        if not check:
            page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{len(pages)} of {len(PAGES)} pages")
    return int(check and bool(pages))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
