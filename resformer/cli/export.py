"""``python -m resformer export``: the network as an ONNX graph, and as a site that needs no server.

The site is the web application's own page. So this command, and no other module, reaches for `web`,
when it is asked to: the command line stands outside of both packages, as ``app.py`` does.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
from pathlib import Path
from typing import Any

from resformer.cli.options import add_model_option

logger = logging.getLogger(__name__)


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "export",
        help="write the network as an ONNX graph",
        description="Make the network's ONNX graph and put it into the checkpoint, as train does "
        "at its end, so that ONNX Runtime can run it. With --onnx, write the graph to a file of "
        "its own instead: from grey films, resized to the checkpoint's size, to probabilities, "
        "gate score, distance, features and lungs; class names and thresholds are in its metadata.",
    )
    add_model_option(parser)
    parser.add_argument(
        "--out", type=Path, help="checkpoint to write (default: the one that was read)"
    )
    parser.add_argument("--onnx", type=Path, help="ONNX file to write, for other programs")
    parser.add_argument(
        "--site",
        type=Path,
        metavar="DIR",
        help="folder to write the page to, for any web server: films are classified in the browser "
        "and sent nowhere",
    )


def run(options: argparse.Namespace) -> int:
    """Export. Return the exit status."""
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
        "wrote %s, %d files of %.1f MB. To try it: python -m http.server --directory %s",
        *(folder, len(files), size / 1e6, folder),
    )
