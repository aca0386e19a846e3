"""The command that sets two versions or outputs beside each other."""

import json
from typing import Annotated

import typer

from barycenter.flows.console import Debug, EndpointUrl, app, out, report_errors

_SIDE = "An output (the version that readers see), or DIR@N, its version N."
Before = Annotated[str, typer.Argument(metavar="A", help=_SIDE)]
After = Annotated[str, typer.Argument(metavar="B", help="The same for what it is compared with.")]


@app.command()
def compare(
    before: Before,
    after: After,
    head: Annotated[
        str | None, typer.Option("--head", metavar="KIND", help="Kind of head, where a version has several.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    endpoint_url: EndpointUrl = None,
    debug: Debug = False,
) -> None:
    """What differs between two versions or outputs: job, data, figures, predictions, and which rows moved."""
    with report_errors(debug):
        from barycenter.tasks.report.comparison.compare import compare as compare_sides
        from barycenter.tasks.report.comparison.sides import Side

        compared = compare_sides(Side.open(before, endpoint_url), Side.open(after, endpoint_url), head)
        if as_json:
            print(json.dumps(compared, indent=1))
            return
        from barycenter.tasks.report.comparison.terminal import comparison_table

        out.print(comparison_table(compared))
