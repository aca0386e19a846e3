"""What Ray has no public interface for, each with why, and with what happens where a Ray has it no more."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

log = logging.getLogger(__name__)

_ANSWER_SECONDS = 5
_T = TypeVar("_T")


def silence_worker_output() -> None:
    """Sends what Ray prints about its workers to the log.

    Ray reports dead workers on stdout, where only results belong, and has no switch for that: ``log_to_driver`` is for
    the workers' own lines. Without the private function such lines are printed.
    """
    try:
        worker = _worker()
        worker.print_to_stdstream  # noqa: B018 - is it there?
    except (ImportError, AttributeError):
        log.debug("this Ray prints about its workers itself")
        return
    worker.print_to_stdstream = _log_instead_of_print


def _log_instead_of_print(data: dict[str, Any], ignore_prefix: bool) -> None:
    del ignore_prefix
    log.debug("%s: %s", data["pid"], " ".join(data["lines"]))


@dataclass(frozen=True)
class Autoscaling:
    """What an autoscaler of version 2 says: nodes that it starts, and requests that no node could ever take."""

    starting: int
    impossible: int


def autoscaling() -> Autoscaling | None:
    """What the cluster's autoscaler says; None where there is none of version 2, or this Ray does not say."""
    return _answer(_autoscaling, None, "what its autoscaler does")


def node_groups() -> list[tuple[dict[str, float], int | None]]:
    """The kinds of nodes that an autoscaler may start, where Ray says so: resources and how many in all, None for any.

    Ray Data and Ray Train read the same; hosted Rays fill it in, KubeRay and ``ray up`` do not yet.
    """
    return _answer(_node_groups, [], "its node groups")


def draining_nodes() -> frozenset[str]:
    """Ids of the nodes that were given notice and will go; none where this Ray does not say."""
    return _answer(lambda: frozenset(_state().get_draining_nodes()), frozenset(), "which nodes it drains")


def session_folder() -> str | None:
    """The folder of the Ray session on this machine; None where this Ray does not say."""
    return _answer(lambda: str(_worker().global_worker.node.get_session_dir_path()), None, "its session's folder")


def dashboard_url() -> str | None:
    """Where the cluster's dashboard is, by ``RAY_OVERRIDE_DASHBOARD_URL`` or as Ray says; None where there is none.

    Publicly Ray says it only as ``ray.init`` returns.
    """
    address = os.environ.get("RAY_OVERRIDE_DASHBOARD_URL") or _answer(_dashboard_url, None, "where its dashboard is")
    return (address if "://" in address else f"http://{address}") if address else None


def _answer(question: Callable[[], _T], otherwise: _T, what: str) -> _T:
    try:
        return question()
    except Exception as error:  # noqa: BLE001 - whatever another Ray makes of it
        log.debug("this Ray does not say %s: %s", what, error)
        return otherwise


def _autoscaling() -> Autoscaling | None:
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

    reply = GetClusterStatusReply()
    client = _worker().global_worker.gcs_client
    reply.ParseFromString(client.get_cluster_status(timeout_s=_ANSWER_SECONDS))
    state = reply.autoscaling_state
    if not state.autoscaler_state_version:
        return None
    starting = sum(request.count for request in state.pending_instance_requests) + len(state.pending_instances)
    impossible = len(state.infeasible_resource_requests) + len(state.infeasible_gang_resource_requests)
    return Autoscaling(starting, impossible)


def _node_groups() -> list[tuple[dict[str, float], int | None]]:
    config = _state().get_cluster_config()
    groups = config.node_group_configs if config is not None else []
    return [(dict(group.resources), None if group.max_count < 0 else group.max_count) for group in groups]


def _state() -> Any:
    return import_module("ray._private.state").state


def _dashboard_url() -> str | None:
    url: str | None = _worker().get_dashboard_url()
    return url


def _worker() -> Any:
    return import_module("ray._private.worker")
