"""Prints the page: `python -m tests.messages > docs/troubleshooting.md`."""

from tests.messages.page import page

if __name__ == "__main__":
    print(page(), end="")
