"""Environment that Prefect and Ray read when they are imported; imported before either."""

import os

from barycenter.infra.logs import set_up_logs

_DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TOKENIZERS_PARALLELISM": "false",
}

FOR_WORK_POOLS = {name: _DEFAULTS[name] for name in ("PREFECT_FLOWS_HEARTBEAT_FREQUENCY",)}
"""What Prefect reads when the process of a deployment's run starts, before it imports a flow."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""This machine, which is reached without a proxy."""

for _name, _value in _DEFAULTS.items():
    os.environ.setdefault(_name, _value)


def _reach_this_machine_directly() -> None:
    """Where a proxy is set, keeps it out of the way to this machine's own servers: Prefect's, Ray's dashboard."""
    proxies = ("http_proxy", "https_proxy", "all_proxy")
    if not any(os.environ.get(spelled) for name in proxies for spelled in (name, name.upper())):
        return
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    named = [host.strip() for host in given.split(",") if host.strip()]
    if "*" not in named:
        named += [host for host in LOOPBACK if host not in named]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(named)


_reach_this_machine_directly()
set_up_logs()
