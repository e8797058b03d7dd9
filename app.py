"""Starts the web application: `python app.py`, or `gunicorn "app:create_app()"`."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from web import WebConfig, create_app
from web.server import serve
from web.service import StartError

__all__ = ["create_app", "main"]

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = "5000"


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until stopped; 1 where the start fails, with one line that says why."""
    config = WebConfig.from_environment()
    options = _parse(arguments, config)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    try:
        app = create_app(dataclasses.replace(config, model_path=options.model))
        serve(app, options.host, options.port)
    except StartError as error:
        sys.stderr.write(f"resformer: {error}\n")
        return 1
    return 0


def _parse(arguments: Sequence[str] | None, config: WebConfig) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="app.py", description="Serve the chest X-ray classifier as a web page and an API."
    )
    parser.add_argument(
        "--host",
        default=os.environ.get("RESFORMER_HOST") or DEFAULT_HOST,
        help="address to serve on; 0.0.0.0 opens it to the network "
        "(default: RESFORMER_HOST or %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=os.environ.get("RESFORMER_PORT") or DEFAULT_PORT,
        help="port, 0 for any free one (default: RESFORMER_PORT or %(default)s)",
    )
    parser.add_argument(
        "--model",
        type=Path,
        default=config.model_path,
        help="checkpoint to serve (default: RESFORMER_MODEL or %(default)s)",
    )
    return parser.parse_args(arguments)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
