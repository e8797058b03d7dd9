"""`POST /feedback`: an image with its right class, kept for training; only where it is switched on.

The image comes once more: nothing of a request to `/predict` is remembered.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Blueprint, Response, jsonify, request

from resformer.images import decode_image
from web.config import WebConfig
from web.errors import ApiError
from web.feedback_store import FeedbackStore, StorageFullError
from web.options import check_class, read_options
from web.service import ModelNotReadyError, ModelService
from web.uploads import read_upload
from web.work_queue import WorkQueue


def create_blueprint(config: WebConfig, service: ModelService, queue: WorkQueue) -> Blueprint:
    """Return the route that keeps an image.

    Raises:
        StartError: if the folder cannot be used.
    """
    blueprint = Blueprint("feedback", __name__)
    store = FeedbackStore(config.uploads_path, config.feedback_max_bytes, config.time_limit)

    def keep(data: bytes, class_name: str) -> None:
        store.keep(decode_image(data, max_pixels=config.max_pixels), class_name)

    @blueprint.post("/feedback")
    def feedback() -> Response:
        _refuse_other_sites()
        if not service.class_names:
            raise ModelNotReadyError
        data, fields = read_upload(config.max_bytes)
        class_name = read_options({**request.args.to_dict(), **fields}).class_name or ""
        check_class(class_name, service)
        try:
            queue.run(lambda: keep(data, class_name))
        except StorageFullError:
            raise ApiError(
                507,
                "storage_full",
                "This server has no room for another image. Tell its operator.",
            ) from None
        return jsonify({"success": True, "class": class_name})

    return blueprint


def _refuse_other_sites() -> None:
    """Keep pages that a person happens to visit from filling the folder through their browser.

    Browsers tell where a request comes from, programs do not.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is None:  # a browser that is old, or that came without TLS
        origin = request.headers.get("Origin")
        is_own = origin is None or urlsplit(origin).netloc == request.host
    else:
        is_own = site in ("same-origin", "none")
    if not is_own:
        raise ApiError(403, "cross_origin", "Images are taken from this server's own page only.")
