"""Who may ask and how often, and the headers that keep the page to itself.

The API key and the rate limit are off by default.
"""

from __future__ import annotations

import hmac
import math
import re
import time
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, NoReturn

from flask import Flask, Response, request
from werkzeug.middleware.proxy_fix import ProxyFix

from web.config import StartError, WebConfig
from web.errors import API_PREFIXES, ApiError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

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
# Some proxies forward the port too: 192.0.2.7:4711, [2001:db8::1]:4711.
_WITH_PORT = re.compile(r"\[(.*)\](?::\d+)?|([^:]*):\d+")
_KEY_PREFIXES = (*API_PREFIXES, "/metrics")


def register(app: Flask, config: WebConfig) -> None:
    """Put the configured checks in front of the application, and the headers behind it.

    Raises:
        StartError: if the rate limit cannot be read.
    """
    if config.proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            _CheckAddress(app.wsgi_app), x_for=config.proxies, x_proto=config.proxies
        )
    if config.known_hosts:
        _check_host(app, config.known_hosts)
    if config.rate_limit:
        _limit_rate(app, config.rate_limit)  # first, so that guessing keys is limited too
    if config.api_key:
        _ask_for_key(app, config.api_key.encode())

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
        return response


class _CheckAddress:
    """Goes by the proxy's own address where what it forwards is none."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        found = _WITH_PORT.fullmatch(environ["REMOTE_ADDR"])
        address = (found[1] or found[2]) if found else environ["REMOTE_ADDR"]
        try:
            environ["REMOTE_ADDR"] = str(ip_address(address))
        except ValueError:
            environ["REMOTE_ADDR"] = environ["werkzeug.proxy_fix.orig"]["REMOTE_ADDR"]
        return self._app(environ, start)


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
                "This server does not go by the name that it was asked by. Its operator can add "
                "the name to RESFORMER_HOSTS.",
            )


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
