"""Settings of `gunicorn "app:create_app()"`, which reads this file by itself.

gunicorn belongs behind a proxy that takes requests in whole and answers slow clients, as nginx does
by deploy/nginx.conf: its own threads serve whoever has sent everything. Each worker process loads
the model after it was forked: PyTorch's threads do not survive a fork. They share the cores.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from web.config import StartError, WebConfig, unknown_variables
from web.monitoring import SHARED_FOLDER, logging_config
from web.reload import watch

try:
    _config = WebConfig.from_environment()
except StartError as error:
    sys.exit(f"resformer: {error}")

_host = f"[{_config.host}]" if ":" in _config.host else _config.host

bind = f"{_host}:{_config.port}"
workers = _config.workers
threads = _config.threads
worker_class = "gthread"
preload_app = False
timeout = 120  # loading the model counts
graceful_timeout = round(_config.stop_limit)
# No narrower than the proxy's, so that what is too long is refused in its words.
limit_request_line = limit_request_field_size = 8190
limit_request_fields = 1024
forwarded_allow_ips = ""  # what proxies say is read by web/proxies.py alone
logconfig_dict = logging_config(_config.log)
control_socket_disable = True

_SHARED_MEMORY = "/dev/shm"
_LOAD_FAILED = 4  # with this status of a worker gunicorn ends
_watching = ExitStack()


def on_starting(server: Any) -> None:
    """Refuse what cannot work, share the cores, and make room for metrics."""
    if server.cfg.preload_app:
        sys.exit("resformer: the model must be loaded after the fork: start without --preload")
    for warning in unknown_variables():
        server.log.warning(warning)
    if not _config.proxies:
        server.log.warning("slow clients stop gunicorn: put a proxy in front (deploy/nginx.conf)")
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


def post_fork(server: Any, worker: Any) -> None:
    """Where the application cannot start, let one worker say why in one line and end all."""
    load = worker.app.load

    def load_or_end() -> Any:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is a model to replace
        try:
            return load()
        except StartError as error:
            try:
                Path(os.environ[SHARED_FOLDER], "failed").touch(exist_ok=False)
            except FileExistsError:
                sys.exit(0)  # gunicorn would fail over a second one while it ends for the first
            server.log.error("resformer: %s", error)
            sys.exit(_LOAD_FAILED)

    worker.app.load = load_or_end


def post_worker_init(worker: Any) -> None:
    """Look after the model's file."""
    look_at_once = _watching.enter_context(watch(worker.wsgi))
    signal.signal(signal.SIGHUP, lambda *_: look_at_once())


def worker_exit(server: Any, worker: Any) -> None:
    """Look no more."""
    _watching.close()


def child_exit(server: Any, worker: Any) -> None:
    """Let the figures of a worker that has ended count on."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(server: Any) -> None:
    """Remove the folder with the metrics."""
    shutil.rmtree(os.environ[SHARED_FOLDER], ignore_errors=True)
