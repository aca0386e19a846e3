"""Environment that Prefect and Ray read when they are imported; imported before either."""

import os

from infra.logs import set_up_logs

_DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "flows,tasks,infra,fusion",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TOKENIZERS_PARALLELISM": "false",
}

for _name, _value in _DEFAULTS.items():
    os.environ.setdefault(_name, _value)

set_up_logs()
