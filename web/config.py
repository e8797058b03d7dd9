"""Everything that an operator can choose about the web application."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

from resformer import find_shipped_model

_PACKAGE = Path(__file__).resolve().parent
PROJECT_ROOT = _PACKAGE.parent
# In a wheel pages and model lie inside the packages (setup.py), in a checkout beside them.
PAGES = _PACKAGE if (_PACKAGE / "templates").is_dir() else PROJECT_ROOT
UPLOADS = PROJECT_ROOT / "uploads"
_DAY = 24 * 60 * 60.0
# A path without what a browser or a log could read as something else.
ROOT_PATH = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:\d+)?|https?://\[[0-9a-f:]+\](:\d+)?")
_KINDS = {bool: "0 or 1", int: "a whole number", float: "a number"}


class StartError(ValueError):
    """The application cannot start; the message is one line for the operator."""


@dataclass(frozen=True)
class WebConfig:
    """What the application serves, what it accepts and how it bears load.

    Each field is set by an environment variable of its name: ``max_pixels`` by
    ``RESFORMER_MAX_PIXELS``, and ``model_path`` by ``RESFORMER_MODEL``. ``python app.py --help``
    prints them all.

    Raises:
        StartError: if a value is impossible, naming it and what is possible.
    """

    model_path: Annotated[Path, "checkpoint to serve"] = field(default_factory=find_shipped_model)
    device: Annotated[str, "where the network runs: auto, cpu, cuda, cuda:1 or mps"] = "auto"
    backend: Annotated[str, "what runs the network: auto, torch or onnxruntime"] = "auto"
    host: Annotated[str, "address to serve on; 0.0.0.0 opens it to the network"] = "127.0.0.1"
    hosts: Annotated[
        str, "names by which it may be asked, as in films.example,10.0.0.7; * for any"
    ] = ""
    port: Annotated[int, "port; 0 takes any free one"] = 5000
    workers: Annotated[int, "processes (gunicorn only), each with a model of its own"] = 2
    max_bytes: Annotated[int, "largest file, in bytes"] = 32 * 1024 * 1024
    max_files: Annotated[int, "most files in one request to /predict/batch"] = 32
    max_pixels: Annotated[int, "largest image, width x height"] = 50_000_000
    preview_side: Annotated[int, "longer side of the preview that goes back, in pixels"] = 512
    concurrency: Annotated[int, "images decoded at the same time, in each process"] = 2
    queue_size: Annotated[int, "requests that may wait, in each process; more get 503"] = 32
    time_limit: Annotated[float, "seconds from the arrival of a request to its answer"] = 30.0
    receive_limit: Annotated[
        float, "seconds in which a whole request must arrive (app.py only)"
    ] = 60.0
    stop_limit: Annotated[float, "seconds to finish what has begun when the server stops"] = 30.0
    api_key: Annotated[str | None, "key that /predict, /feedback and /metrics ask for"] = field(
        default=None, repr=False
    )
    rate_limit: Annotated[str | None, "requests of a client, such as 60/minute"] = None
    allow_origin: Annotated[
        str, "other sites whose pages may ask, as in https://films.example; * for any"
    ] = ""
    proxies: Annotated[int, "own proxies in front, whose X-Forwarded-… headers are believed"] = 0
    root_path: Annotated[str, "path under which a proxy serves the pages, as in /films"] = ""
    log: Annotated[str, "style of the log: text or json"] = "text"
    keep_feedback: Annotated[bool, "1 lets people give images with their class for training"] = (
        False
    )
    uploads_path: Annotated[Path, "folder of the images that people gave"] = UPLOADS
    feedback_max_bytes: Annotated[int, "how large that folder may grow"] = 1024**3

    def __post_init__(self) -> None:
        """Refuse values that would refuse every image or every client."""
        object.__setattr__(self, "host", self.host.strip("[]"))  # as in an address of IPv6
        limits = ("max_bytes", "max_files", "max_pixels", "preview_side", "feedback_max_bytes")
        for name in ("workers", "concurrency", *limits):
            self._check(name, 1)
        for name in ("queue_size", "proxies"):
            self._check(name, 0)
        for name in ("receive_limit", "stop_limit", "time_limit"):
            self._check(name, 1, _DAY)
        self._check("port", 0, 65535)
        object.__setattr__(self, "root_path", self.root_path.rstrip("/"))
        if self.root_path and not ROOT_PATH.fullmatch(self.root_path):
            raise StartError(f"root_path must be a path such as /films, got {self.root_path!r}")
        for origin in self.allowed_origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise StartError(
                    f"allow_origin must name origins such as https://films.example, got {origin!r}"
                )
        if self.log not in ("text", "json"):
            raise StartError(f"log must be text or json, got {self.log!r}")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise StartError("api_key must be of printable ASCII characters")

    def _check(self, name: str, least: float, most: float = float("inf")) -> None:
        value = getattr(self, name)
        if not least <= value <= most:
            bounds = f"at least {least}" if value < least else f"at most {most:.0f}"
            raise StartError(f"{name} must be {bounds}, got {value}")

    @property
    def max_request_bytes(self) -> int:
        """Bound on a whole request: the largest file in base64, and the text around it.

        A batch of files has the same bound, so that requests take a known amount of memory.
        """
        return 4 * (self.max_bytes // 3 + 1) + 64 * 1024

    @property
    def is_local(self) -> bool:
        """Whether the server can be reached from its own machine only."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def known_hosts(self) -> frozenset[str] | None:
        """What a request's ``Host`` may name, without a port; None where it may name anything.

        Any site can let its own name lead to this machine (DNS rebinding), and its page would
        then count as ours: a server that only its own machine reaches goes by its own names.
        """
        named = {name.strip().lower() for name in self.hosts.split(",")} - {""}
        if "*" in named or not (named or self.is_local):
            return None
        own = f"[{self.host}]" if ":" in self.host else self.host
        return frozenset({*named, own, "localhost", "127.0.0.1", "[::1]"})

    @property
    def allowed_origins(self) -> frozenset[str]:
        """The origins whose pages may read answers, as browsers write them; ``*`` is any."""
        return frozenset(name.strip().lower() for name in self.allow_origin.split(",")) - {""}

    @property
    def threads(self) -> int:
        """Threads of a server process: for all that work or wait, and to turn others away."""
        return self.concurrency + self.queue_size + 8

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> WebConfig:
        """Read every setting whose variable is set and not empty.

        Raises:
            StartError: if a variable cannot be read or has an impossible value.
        """
        variables = os.environ if environment is None else environment
        values = {}
        for name, variable, kind, _ in _settings():
            text = variables.get(variable, "").strip()
            if text:
                values[name] = _read(variable, text, kind)
        return cls(**values)


def unknown_variables() -> list[str]:
    """Return a warning for every variable that looks like a setting and is none."""
    known = [variable for _, variable, _, _ in _settings()]
    warnings = []
    for name in sorted(os.environ):
        if name.startswith("RESFORMER") and name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            warnings.append(f"{name} is not a setting and has no effect{hint}")
    return warnings


def describe_settings() -> str:
    """List every environment variable with its meaning and default, one a line."""
    lines, defaults = [], WebConfig()
    for name, variable, _, meaning in _settings():
        default = getattr(defaults, name)
        shown = {None: "none", "": "none", False: "0"}.get(default, default)
        lines.append(f"  {variable:<30}{meaning} (default: {shown})")
    return "\n".join(lines)


def _settings() -> Iterator[tuple[str, str, Any, str]]:
    """Name, environment variable, type and meaning of every setting."""
    for name, hint in get_type_hints(WebConfig, include_extras=True).items():
        kind, meaning = get_args(hint)
        known_as = name.removesuffix("_path") if kind is Path else name
        yield name, f"RESFORMER_{known_as.upper()}", kind, meaning


def _read(variable: str, text: str, kind: Any) -> Any:
    try:
        if kind is bool:
            return {"0": False, "1": True}[text]
        return kind(text) if kind in (int, float, Path) else text
    except (KeyError, ValueError):
        raise StartError(f"{variable} must be {_KINDS[kind]}, got {text!r}") from None
