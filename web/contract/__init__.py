"""What the application promises to programs, as an OpenAPI 3.1 document."""

from __future__ import annotations

from web.contract.document import build_document

__all__ = ["build_document"]
