"""Settings of `gunicorn "app:create_app()"`, which reads this file by itself.

Each worker process loads the model after it was forked: PyTorch's threads do not survive a fork.
They share the cores among them. The limits are those of `python app.py` (its `--help` names the
environment variables); gunicorn's own limits on requests do not apply to this kind of worker.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

from web.config import StartError, WebConfig
from web.monitoring import SHARED_FOLDER, logging_config

_config = WebConfig.from_environment()

bind = f"{_config.host}:{_config.port}"
workers = _config.workers
threads = _config.threads
worker_class = "web.gunicorn_worker.WaitressWorker"
preload_app = False
timeout = 120  # loading the model counts
graceful_timeout = round(_config.stop_limit)
logconfig_dict = logging_config(_config.log)
control_socket_disable = True


def on_starting(server: Any) -> None:
    """Refuse to load the model before the fork, share the cores, and make room for metrics."""
    if server.cfg.preload_app:
        raise StartError("the model must be loaded after the fork: start without --preload")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (cores or 1) // server.cfg.workers)))
    os.environ[SHARED_FOLDER] = tempfile.mkdtemp(prefix="resformer-metrics-")


def child_exit(server: Any, worker: Any) -> None:
    """Let the figures of a worker that has ended count on."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(server: Any) -> None:
    """Remove the folder with the metrics."""
    shutil.rmtree(os.environ[SHARED_FOLDER], ignore_errors=True)
