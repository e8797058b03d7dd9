"""What proxies in front tell: who asks, by which scheme, and under which path the pages lie."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from web.config import ROOT_PATH, WebConfig

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# Some proxies forward the port too: 192.0.2.7:4711, [2001:db8::1]:4711.
_WITH_PORT = re.compile(r"\[(.*)\](?::\d+)?|([^:]*):\d+")


def register(app: Flask, config: WebConfig) -> None:
    """Go by what the configured number of proxies says, and lie under the configured path."""
    app.wsgi_app = _Mount(app.wsgi_app, config.root_path)  # type: ignore[method-assign]
    if config.proxies:
        # The prefix is not counted from the right: one of the proxies sets it, whichever it is.
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            _CheckAddress(app.wsgi_app), x_for=config.proxies, x_proto=config.proxies, x_prefix=1
        )


class _Mount:
    """Lets every link begin with the path under which a proxy serves the application.

    That is what a trusted proxy calls ``X-Forwarded-Prefix``, or else the configured path. A proxy
    may cut the configured path off before it asks, or leave it on.
    """

    def __init__(self, app: WSGIApplication, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        named = environ.get("SCRIPT_NAME", "").rstrip("/")
        # Anything else, such as //films.example, would lead away from this server.
        environ["SCRIPT_NAME"] = named if ROOT_PATH.fullmatch(named) else self._root_path
        path = environ["PATH_INFO"]
        if f"{path}/".startswith(f"{self._root_path}/"):
            environ["PATH_INFO"] = path.removeprefix(self._root_path)
        return self._app(environ, start_response)


class _CheckAddress:
    """Goes by the proxy's own address where what it forwards is none."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        found = _WITH_PORT.fullmatch(environ["REMOTE_ADDR"])
        address = (found[1] or found[2]) if found else environ["REMOTE_ADDR"]
        try:
            environ["REMOTE_ADDR"] = str(ip_address(address))
        except ValueError:
            environ["REMOTE_ADDR"] = environ["werkzeug.proxy_fix.orig"]["REMOTE_ADDR"]
        return self._app(environ, start_response)
