"""docs/commands.md is what the commands say of themselves."""

from pathlib import Path

from tests.flows.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"


def test_the_page_of_every_command_is_current():
    kept = PAGE.read_text()
    assert kept == reference(), "run `python -m tests.flows.reference > docs/commands.md`"
    assert "\n## neighbors\n\n`barycenter neighbors DIR`\n" in kept
    assert "| `--top N` | How many rows. | `10` |" in kept
