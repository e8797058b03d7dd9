"""``python -m resformer fit-gate`` and ``export``: change what a checkpoint holds, or write it out.

The site that ``export`` writes is the web application's own page. So this command, and no other
module, reaches for ``web``, when it is asked to: the command line stands outside of both packages,
as ``app.py`` does.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from resformer.cli.options import Commands, add_command, add_path, add_shared, check_out

if TYPE_CHECKING:
    from resformer.checkpoint import Checkpoint

logger = logging.getLogger(__name__)

_OUT = "checkpoint to write (default: the one that was read, with --overwrite)"


def add_fit_gate(commands: Commands) -> None:
    """Add ``fit-gate`` and its options."""
    parser = add_command(
        commands,
        "fit-gate",
        _fit_gate,
        "fit the gate, which refuses what is no chest X-ray, and the abstention",
        "Fit the gate and the abstention of a checkpoint, or replace them, as train does at its "
        "end: the gate on the films of the training split against outliers, with a threshold that "
        "nearly all films of the validation split pass; the abstention on the same films, with "
        "thresholds that call at most one validation film in twenty uncertain, besides those whose "
        "class is hardly likelier than a guess. With --manifest, also count on the test films how "
        "often what they let through is right. A graph in the checkpoint is exported again.",
    )
    add_shared(parser, "model", "data", "outliers", "device")
    add_path(parser, "--manifest", "CSV of the split that it was trained on (default: a new one)")
    add_path(parser, "--out", _OUT)
    add_shared(parser, "overwrite")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")


def _fit_gate(options: argparse.Namespace) -> int:
    from resformer.checkpoint import load_checkpoint, save_checkpoint
    from resformer.data.manifest import build_manifest, read_manifest
    from resformer.data.unpack import open_data_roots
    from resformer.devices import choose_device
    from resformer.export import add_graph_if_possible
    from resformer.track_record import KEY
    from resformer.training.data import TrainingData
    from resformer.training.finish import add_abstention, add_gate, add_track_record
    from resformer.training.gate_fit import GateConfig, find_outliers

    out = options.out or options.model
    check_out(out, overwrite=options.overwrite)
    checkpoint = load_checkpoint(options.model)
    outliers = find_outliers(options.outliers) if options.outliers else {}
    with open_data_roots(options.data) as root, tempfile.TemporaryDirectory() as folder:
        if options.manifest:
            manifest = read_manifest(options.manifest, root)
        else:
            manifest = build_manifest(root, seed=options.seed, progress=True)
        data = TrainingData(root, manifest, Path(folder), checkpoint.input_spec)
        device, config = choose_device(options.device), GateConfig(seed=options.seed)
        checkpoint = add_gate(checkpoint, data, outliers, device, config, progress=True)
        checkpoint = add_abstention(checkpoint, data, device, progress=True)
        if options.manifest:
            checkpoint = add_track_record(checkpoint, data, device, progress=True)
        else:  # the network may have been trained on the test films of a split that is made now
            logger.warning(
                "left out the track record: name the split it was trained on, --manifest"
            )
            metrics = {name: report for name, report in checkpoint.metrics.items() if name != KEY}
            checkpoint = replace(checkpoint, metrics=metrics)
    if checkpoint.graph:
        # One that was exported before lacks what the abstention looks at.
        checkpoint = add_graph_if_possible(checkpoint)
    save_checkpoint(checkpoint, out)
    logger.info("wrote %s", out)
    return 0


def add_export(commands: Commands) -> None:
    """Add ``export`` and its options."""
    parser = add_command(
        commands,
        "export",
        _export,
        "write the network as an ONNX graph",
        "Make the network's ONNX graph and put it into the checkpoint, as train does at its end, "
        "so that ONNX Runtime can run it. A checkpoint whose graph is valid is left as it is, "
        "unless --out names another one to write, with a graph made anew. With --onnx, write the "
        "graph to a file of its own instead: from grey films, resized to the checkpoint's size, to "
        "probabilities, gate score, distance, features and lungs; class names and thresholds are "
        "in its metadata. No file is replaced without --overwrite, except those of an earlier "
        "--site.",
    )
    add_shared(parser, "model")
    add_path(parser, "--out", _OUT)
    add_shared(parser, "overwrite")
    add_path(parser, "--onnx", "ONNX file to write, for other programs")
    site = "folder to write the page to, for any web server: films are classified in the browser"
    add_path(parser, "--site", f"{site} and sent nowhere", metavar="DIR")


def _export(options: argparse.Namespace) -> int:
    from resformer.checkpoint import load_checkpoint, save_checkpoint
    from resformer.export import add_graph

    checkpoint, out = load_checkpoint(options.model), options.out or options.model
    is_for_others = bool(options.onnx or options.site)
    if options.onnx:
        check_out(options.onnx, overwrite=options.overwrite)
    if options.out or not _has_graph(checkpoint, strict=is_for_others):
        # The page is made of a checkpoint's file; a graph of its own needs none.
        is_saved = options.out or options.site or not options.onnx
        if is_saved:
            check_out(out, overwrite=options.overwrite)
        checkpoint = add_graph(checkpoint)
        if is_saved:
            save_checkpoint(checkpoint, out)
            logger.info("wrote %s", out)
    elif not is_for_others:
        logger.info("%s holds a valid graph: left as it is", options.model)
    if options.onnx and checkpoint.graph:
        content = checkpoint.graph.content
        options.onnx.write_bytes(content)
        # No checkpoint guards this file: whoever serves it can compare.
        digest = hashlib.sha256(content).hexdigest()
        logger.info("wrote %s, SHA-256 %s", options.onnx, digest)
    if options.site:
        _write_site(out, options.site)
    return 0


def _has_graph(checkpoint: Checkpoint, *, strict: bool) -> bool:
    """Return whether a checkpoint holds a graph that computes what the rest of it says.

    Raises:
        CheckpointError: if it says so and does not, and ``strict`` is given.
    """
    from resformer.checkpoint import CheckpointError
    from resformer.export import find_graph

    try:
        return find_graph(checkpoint) is not None
    except CheckpointError:
        if strict:
            raise
        return False


def _write_site(model: Path, folder: Path) -> None:
    try:
        from web.site import write_site
    except ImportError as error:
        raise ValueError(
            f"the page needs a package that is not installed ({error.name}): "
            "pip install 'resformer[serve]'"
        ) from error
    files = write_site(model, folder)
    size = sum((folder / name).stat().st_size for name in files)
    logger.info(
        "wrote %(folder)s, %(count)d files of %(megabytes).1f MB. To try it: "
        "python -m http.server --directory %(folder)s",
        {"folder": folder, "count": len(files), "megabytes": size / 1e6},
    )
