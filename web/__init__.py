"""The web application around `resformer`: one page and one way to ask for a prediction."""

from __future__ import annotations

from web.config import WebConfig
from web.factory import create_app

__all__ = ["WebConfig", "create_app"]
