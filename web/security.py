"""Who may ask and how often, and the headers that keep the page to itself.

The API key, the rate limit and pages of other origins are off by default.
"""

from __future__ import annotations

import hmac
import math
import re
import time
from ipaddress import IPv6Address, ip_address
from typing import NoReturn

from flask import Flask, Response, request

from web.config import StartError, WebConfig
from web.errors import API_PREFIXES, API_ROOTS, ApiError

HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data: blob:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# For the script that runs the model in the browser: the page itself may still not.
_WORKER = "js/local/worker.js"
_WORKER_POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'"
_KEY_PREFIXES = (*API_PREFIXES, "/metrics")
# Not /feedback, which takes images from this server's own page only.
_SHARED_PREFIXES = tuple(
    root + path for root in API_ROOTS for path in ("/predict", "/model", "/openapi.json")
)
_PREFLIGHT = {
    "Access-Control-Allow-Headers": "Authorization, Content-Type, X-API-Key",
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Max-Age": "600",
}


def register(app: Flask, config: WebConfig) -> None:
    """Put the configured checks in front of the application, and the headers behind it.

    Raises:
        StartError: if the rate limit cannot be read.
    """
    if config.known_hosts:
        _check_host(app, config.known_hosts)
    if config.allowed_origins:
        _allow_origins(app, config.allowed_origins)  # a browser asks whether it may send a key
    if config.rate_limit:
        _limit_rate(app, config.rate_limit)  # first, so that guessing keys is limited too
    if config.api_key:
        _ask_for_key(app, config.api_key.encode())

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        if request.endpoint == "static" and request.path.endswith(_WORKER):
            response.headers["Content-Security-Policy"] = _WORKER_POLICY
        response.headers.setdefault("Cache-Control", "no-store")
        return response


def client_of(address: str | None) -> str:
    """Return who counts as one client: an address, or the network that IPv6 gives to one."""
    try:
        parsed = ip_address(address or "")
    except ValueError:  # a socket without addresses
        return address or ""
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or int(parsed) >> 64)


def _check_host(app: Flask, known: frozenset[str]) -> None:
    @app.before_request
    def check_host() -> None:
        host = request.headers.get("Host", "localhost")  # a browser always sends it
        if re.sub(r":\d*$", "", host).lower() not in known:
            raise ApiError(
                "unknown_host",
                "This server does not answer to this host name. Its operator can add "
                "the name to RESFORMER_HOSTS.",
            )


def _allow_origins(app: Flask, origins: frozenset[str]) -> None:
    """Let pages of some origins read answers (https://fetch.spec.whatwg.org/#http-cors-protocol)."""

    def is_shared() -> bool:
        return request.path.startswith(_SHARED_PREFIXES)

    @app.before_request
    def answer_preflight() -> Response | None:
        if not (is_shared() and "Access-Control-Request-Method" in request.headers):
            return None
        return Response(status=204, headers=_PREFLIGHT) if request.method == "OPTIONS" else None

    @app.after_request
    def share_answer(response: Response) -> Response:
        if is_shared():
            origin = request.headers.get("Origin", "")
            response.vary.add("Origin")
            if not origins.isdisjoint((origin, "*")):
                response.headers["Access-Control-Allow-Origin"] = origin or "*"
                response.headers["Access-Control-Expose-Headers"] = "Retry-After, X-Request-ID"
        return response


def _ask_for_key(app: Flask, key: bytes) -> None:
    @app.before_request
    def check_key() -> None:
        if request.path.startswith(_KEY_PREFIXES) and not _has_key(key):
            raise ApiError(
                "unauthorized",
                "This server asks for a key. Ask its operator for one, and send it as "
                "“Authorization: Bearer KEY” or as “X-API-Key: KEY”.",
                headers={"WWW-Authenticate": 'Bearer realm="resformer"'},
            )


def _has_key(key: bytes) -> bool:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    given = [request.headers.get("X-API-Key", "")]
    if scheme.lower() == "bearer":
        given.append(token.strip())
    # Bytes, because a comparison in constant time takes no other text than ASCII.
    return any(hmac.compare_digest(text.encode(), key) for text in given)


def _limit_rate(app: Flask, rate: str) -> None:
    # Imported only where it is switched on: it is off by default.
    from flask_limiter import Limiter, RequestLimit
    from limits import parse_many

    try:
        parse_many(rate)
    except ValueError:
        raise StartError(
            f"cannot read the rate limit {rate!r}: write it like 60/minute or 5 per second"
        ) from None

    def refuse(limit: RequestLimit) -> NoReturn:
        seconds = max(1, math.ceil(limit.reset_at - time.time()))
        raise ApiError(
            "rate_limited",
            f"Too many requests. Try again in {seconds} s.",
            headers={"Retry-After": str(seconds)},
        )

    limiter = Limiter(
        lambda: client_of(request.remote_addr),
        app=app,
        application_limits=[rate],
        storage_uri="memory://",
        on_breach=refuse,
    )

    @limiter.request_filter
    def is_free() -> bool:
        return not request.path.startswith(API_PREFIXES)
