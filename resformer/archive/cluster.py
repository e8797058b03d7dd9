"""Score an archive on a Ray cluster: an actor on each core scores parts as one machine would.

Ray Data hands out the numbers of the parts, starts the actors, and hands the part of one that was
lost to another. Films and rows do not pass through it: an actor reads, answers and writes a part
itself, as :func:`resformer.archive.run.score_part` does everywhere, so a part is written once
however often it is begun, and the process that was started by the user keeps no film.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from resformer.archive.run import Run, score_part
from resformer.checkpoint import Checkpoint
from resformer.predict import Predictor

# Ray reports its use to its makers and logs its internals, unless it is told not to.
_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
# A cluster of one's own fails to start where it takes more than 30 s, as on a busy machine.
_TRIES = 3


def score_on_cluster(
    run: Run,
    parts: Sequence[int],
    checkpoint: Checkpoint,
    versions: str,
    *,
    address: str,
    device: str,
    backend: str,
) -> Iterator[Counter[str]]:
    """Score parts on a cluster.

    Args:
        run: whose folder every worker can write to, and whose films every worker can read.
        parts: that are to be done.
        checkpoint: sent to every actor.
        versions: of the libraries.
        address: of the cluster; ``auto`` is the one that this machine belongs to, or else one of
            its own cores.
        device: as for :class:`Predictor`; ``auto`` is a GPU for each actor where there are any.
        backend: as for :class:`Predictor`.

    Yields:
        how many films of a part that is written had which error; none is the empty text.

    Raises:
        ValueError: if Ray is not installed.
        OSError: if there is no such cluster, or a worker fails for another reason than that it was
            lost.
    """
    ray = _connect(address)
    try:
        machines = ray.cluster_resources()
        gpus = int(machines.get("GPU", 0)) if device in {"auto", "cuda"} else 0
        actors = min(len(parts), gpus or int(machines["CPU"]))
        scored = ray.data.from_items(list(parts), override_num_blocks=len(parts)).map(
            _PartScorer,
            fn_constructor_args=(run, checkpoint, versions, device, backend),
            compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=1),
            **({"num_gpus": 1} if gpus else {"num_cpus": 1}),
        )
        for row in scored.iter_rows():
            yield Counter(dict(zip(row["codes"], row["films"], strict=True)))
    except ray.exceptions.RayError as error:
        reason = str(error).strip().rsplit("\n", 1)[-1]
        raise OSError(f"a worker failed; the same command goes on from here: {reason}") from error
    finally:
        ray.shutdown()


def _connect(address: str) -> Any:
    os.environ.update({**_SETTINGS, **os.environ})
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError(
            "--cluster needs Ray: pip install 'resformer[cluster]', or leave --cluster out"
        ) from error

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    for tries_left in reversed(range(_TRIES)):
        try:
            ray.init(
                address=None if address == "auto" else address,
                include_dashboard=False,
                logging_level=logging.ERROR,
            )
            break
        except Exception as error:  # Ray has none narrower for a start that takes it too long
            ray.shutdown()
            if isinstance(error, ConnectionError) or not tries_left:
                raise OSError(
                    f"no Ray cluster could be joined or started ({address}): {error}"
                ) from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray


class _PartScorer:
    """Loads the network once and scores parts, one after the other."""

    def __init__(
        self, run: Run, checkpoint: Checkpoint, versions: str, device: str, backend: str
    ) -> None:
        self._run = run
        self._predictor = Predictor(checkpoint, device, backend)
        self._versions = versions

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        counts = Counter[str]()
        for found in score_part(self._run, int(item["item"]), self._predictor, self._versions):
            counts += found
        return {"codes": list(counts), "films": list(counts.values())}
