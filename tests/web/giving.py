"""Gives images with their class, as the page does."""

from __future__ import annotations

from pathlib import Path

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.web.posting import CONTENT_TYPE, form

SECRET = "Mustermann"


def give(client: FlaskClient, data: bytes, class_name: str | None) -> TestResponse:
    """Send an image with a class as the page does."""
    fields = {} if class_name is None else {"class": class_name}
    body = form([("file", f"{SECRET}.png", data)], **fields)
    return client.post("/feedback", data=body, content_type=CONTENT_TYPE)


def kept(folder: Path) -> list[Path]:
    """The images that were kept; nothing but them may be there."""
    found = {path for path in folder.rglob("*") if path.is_file()}
    return sorted(found - {folder / ".lock"})


def refusal(response: TestResponse) -> tuple[int, str]:
    answer = response.get_json()
    assert answer["success"] is False
    assert answer["error"]
    return response.status_code, answer["code"]
