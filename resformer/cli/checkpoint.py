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

from resformer.cli.options import Commands, add_command, add_path, add_shared

logger = logging.getLogger(__name__)

_OUT = "checkpoint to write (default: the one that was read)"


def add_fit_gate(commands: Commands) -> None:
    """Add ``fit-gate`` and its options."""
    parser = add_command(
        commands,
        "fit-gate",
        _fit_gate,
        "fit what refuses pictures that are no chest X-rays, and what abstains from films",
        "Fit or replace the gate and the abstention of a checkpoint, as train does at its end: the "
        "gate on the films of the training split against outliers, with a threshold that nearly "
        "all films of the validation split pass; the abstention on the same films, with thresholds "
        "that call at most one validation film in twenty uncertain. With --manifest, count on the "
        "test films how often what they let through is right. A graph in the checkpoint is "
        "exported again.",
    )
    add_shared(parser, "model", "data", "outliers", "device")
    add_path(parser, "--manifest", "CSV of the split that it was trained on; else one is made")
    add_path(parser, "--out", _OUT)
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (default: 0)")


def _fit_gate(options: argparse.Namespace) -> int:
    from resformer.checkpoint import load_checkpoint, save_checkpoint
    from resformer.data.manifest import build_manifest, read_manifest
    from resformer.data.unpack import open_datasets
    from resformer.devices import choose_device
    from resformer.export import add_graph_if_possible
    from resformer.gate.fit import GateConfig, find_outliers
    from resformer.track_record import KEY
    from resformer.training.data import TrainingData
    from resformer.training.finish import add_abstention, add_gate, add_track_record

    checkpoint = load_checkpoint(options.model)
    outliers = find_outliers(options.outliers) if options.outliers else {}
    with open_datasets(options.data) as root, tempfile.TemporaryDirectory() as folder:
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
    out = options.out or options.model
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
        "so that ONNX Runtime can run it. With --onnx, write the graph to a file of its own "
        "instead: from grey films, resized to the checkpoint's size, to probabilities, gate score, "
        "distance, features and lungs; class names and thresholds are in its metadata.",
    )
    add_shared(parser, "model")
    add_path(parser, "--out", _OUT)
    add_path(parser, "--onnx", "ONNX file to write, for other programs")
    site = "folder to write the page to, for any web server: films are classified in the browser"
    add_path(parser, "--site", f"{site} and sent nowhere", metavar="DIR")


def _export(options: argparse.Namespace) -> int:
    from resformer.checkpoint import load_checkpoint, save_checkpoint
    from resformer.export import add_graph, find_graph

    checkpoint = load_checkpoint(options.model)
    is_for_others = bool(options.onnx or options.site)
    graph = found = find_graph(checkpoint) if is_for_others else None
    if graph is None:
        checkpoint = add_graph(checkpoint)
        graph = checkpoint.graph
    if options.out or not is_for_others or (options.site and graph is not found):
        save_checkpoint(checkpoint, options.out or options.model)
        logger.info("wrote %s", options.out or options.model)
    if options.onnx and graph:
        options.onnx.parent.mkdir(parents=True, exist_ok=True)
        options.onnx.write_bytes(graph.content)
        # No checkpoint guards this file: whoever serves it can compare.
        digest = hashlib.sha256(graph.content).hexdigest()
        logger.info("wrote %s, SHA-256 %s", options.onnx, digest)
    if options.site:
        _write_site(options.out or options.model, options.site)
    return 0


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
