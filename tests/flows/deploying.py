"""`barycenter deploy`, called as on the command line."""

from typer.testing import CliRunner

from barycenter.flows.cli import app


def deploy(folder, *flags, code=0):
    """What the command printed: to stdout and to stderr."""
    result = CliRunner().invoke(app, ["deploy", str(folder.path), *flags])
    assert result.exit_code == code, result.output
    return result.stdout.splitlines(), result.stderr.splitlines()


def deployment(client, name):
    return client.read_deployment_by_name(f"barycenter/{name}")
