"""Start the web application: ``python app.py``, or ``gunicorn "app:create_app()"``."""

from __future__ import annotations

import argparse
import dataclasses
import logging.config
import sys
from collections.abc import Sequence
from pathlib import Path

from web import WebConfig, create_app
from web.config import StartError, describe_settings, unknown_variables
from web.monitoring import logging_config
from web.server import serve

__all__ = ["create_app", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until stopped; 1 where the start fails, with one line that says why."""
    try:
        config = _parse(arguments, WebConfig.from_environment())
        logging.config.dictConfig(logging_config(config.log))
        for warning in unknown_variables():
            logging.getLogger(__name__).warning(warning)
        serve(create_app(config), config)
    except StartError as error:
        sys.stderr.write(f"resformer: {error}\n")
        return 1
    return 0


def _parse(arguments: Sequence[str] | None, config: WebConfig) -> WebConfig:
    parser = argparse.ArgumentParser(
        prog="app.py",
        description="Serve the chest X-ray classifier as a web page and an API.",
        epilog=f"environment variables:\n{describe_settings()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--host",
        default=config.host,
        help="address to serve on; 0.0.0.0 opens it to the network (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=config.port,
        help="port, 0 for any free one (default: %(default)s)",
    )
    parser.add_argument(
        "--model",
        dest="model_path",
        metavar="FILE",
        type=Path,
        default=config.model_path,
        help="checkpoint to serve (default: %(default)s)",
    )
    parser.add_argument(
        "--backend",
        choices=("auto", "torch", "onnxruntime"),
        default=config.backend,
        help="what runs the network; auto takes the faster (default: %(default)s)",
    )
    return dataclasses.replace(config, **vars(parser.parse_args(arguments)))


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
