"""Settings of `gunicorn "app:create_app()"`, which reads this file by itself.

Each worker process loads the model after it was forked: PyTorch's threads do not survive a fork.
They share the cores among them. The limits are those of `python app.py` (its `--help` names the
environment variables); gunicorn's own limits on requests do not apply to this kind of worker.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from web.config import StartError, WebConfig, unknown_variables
from web.monitoring import SHARED_FOLDER, logging_config

try:
    _config = WebConfig.from_environment()
except StartError as error:
    sys.exit(f"resformer: {error}")

_host = f"[{_config.host}]" if ":" in _config.host else _config.host

bind = f"{_host}:{_config.port}"
workers = _config.workers
threads = _config.threads
worker_class = "web.gunicorn_worker.WaitressWorker"
preload_app = False
timeout = 120  # loading the model counts
graceful_timeout = round(_config.stop_limit)
logconfig_dict = logging_config(_config.log)
control_socket_disable = True

_SHARED_MEMORY = "/dev/shm"
# What this kind of worker has no use for: its limits are those of `python app.py`.
_IGNORED = (
    *("accesslog", "keepalive", "proxy_protocol", "worker_connections"),
    *("limit_request_line", "limit_request_fields", "limit_request_field_size"),
)


def on_starting(server: Any) -> None:
    """Refuse what cannot work, share the cores, and make room for metrics."""
    if server.cfg.preload_app:
        sys.exit("resformer: the model must be loaded after the fork: start without --preload")
    if server.cfg.is_ssl:
        sys.exit("resformer: TLS is not served here: put a proxy with the certificate in front")
    for warning in unknown_variables():
        server.log.warning(warning)
    for name in _IGNORED:
        setting = server.cfg.settings[name]
        if setting.get() != setting.default:
            server.log.warning("gunicorn's %s has no effect here; see app.py --help", name)
    _tell_workers_the_address(server.cfg.address)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (cores or 1) // server.cfg.workers)))
    os.environ[SHARED_FOLDER] = _make_folder(server.cfg)


def _tell_workers_the_address(addresses: Sequence[Any]) -> None:
    """Let the check of `Host` go by what --bind says: a socket without a name has any."""
    hosts = [address[0] for address in addresses if isinstance(address, tuple)]
    if len(hosts) < len(addresses):
        os.environ.setdefault("RESFORMER_HOSTS", "*")
    else:
        os.environ["RESFORMER_HOST"] = min(hosts, key=lambda host: WebConfig(host=host).is_local)


def _make_folder(cfg: Any) -> str:
    """Return a new folder for metrics; on a read-only system it is in memory, as is the pulse."""
    for parent in (None, _SHARED_MEMORY):
        try:
            folder = tempfile.mkdtemp(prefix="resformer-metrics-", dir=parent)
        except OSError:
            continue
        if parent and not cfg.worker_tmp_dir:
            cfg.set("worker_tmp_dir", parent)
        return folder
    sys.exit("resformer: no folder can be written to: set TMPDIR to one that can")


def when_ready(server: Any) -> None:
    """Let SIGHUP make each worker look for another model, where gunicorn would replace all."""
    server.handle_hup = lambda: server.kill_workers(signal.SIGHUP)


def child_exit(server: Any, worker: Any) -> None:
    """Let the figures of a worker that has ended count on."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(server: Any) -> None:
    """Remove the folder with the metrics."""
    shutil.rmtree(os.environ[SHARED_FOLDER], ignore_errors=True)
