"""Who may ask, and how often: an API key and a rate limit, both off by default."""

from __future__ import annotations

import hmac
import math
import time
from typing import NoReturn

from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix

from web.config import WebConfig
from web.errors import API_PREFIXES, ApiError
from web.service import StartError

_KEPT_PATHS = (*API_PREFIXES, "/metrics")


def register(app: Flask, config: WebConfig) -> None:
    """Put the configured checks in front of the application.

    Raises:
        StartError: if the rate limit cannot be read.
    """
    if config.proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=config.proxies, x_proto=config.proxies
        )
    if config.rate_limit:
        _limit_rate(app, config.rate_limit)  # first, so that guessing keys is limited too
    if config.api_key:
        _ask_for_key(app, config.api_key.encode())


def _ask_for_key(app: Flask, key: bytes) -> None:
    @app.before_request
    def check_key() -> None:
        if request.path.startswith(_KEPT_PATHS) and not _has_key(key):
            raise ApiError(
                401,
                "unauthorized",
                "This server asks for a key. Ask its operator for one, and send it as "
                "“Authorization: Bearer KEY” or as “X-API-Key: KEY”.",
                {"WWW-Authenticate": 'Bearer realm="resformer"'},
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
    from flask_limiter.util import get_remote_address
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
            429,
            "rate_limited",
            f"Too many requests. Try again in {seconds} s.",
            {"Retry-After": str(seconds)},
        )

    limiter = Limiter(
        get_remote_address,
        app=app,
        application_limits=[rate],
        storage_uri="memory://",
        on_breach=refuse,
    )

    @limiter.request_filter
    def is_free() -> bool:
        return not request.path.startswith(API_PREFIXES)
