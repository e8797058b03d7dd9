"""What the application says about one image."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

from resformer.gate.result import GateResult
from resformer.images import decode_image, encode_preview
from web.config import WebConfig
from web.errors import ApiError
from web.options import AnswerOptions
from web.service import ModelService

NOT_A_FILM = "not_a_chest_xray"


def answer_image(
    data: bytes, options: AnswerOptions, service: ModelService, config: WebConfig
) -> dict[str, Any]:
    """Decode and classify an image; the body of the answer, as plain data.

    Raises:
        ApiError: 422 `not_a_chest_xray`, unless the options force an answer.
        ImageError: if the image cannot be used.
        ModelNotReadyError: if the model is not loaded.
    """
    pixels = decode_image(data, max_pixels=config.max_pixels)
    prediction = service.predict(pixels)
    gate, pictures = prediction.gate, {}
    if options.preview:
        pictures["image"] = _text(encode_preview(pixels, max_side=config.preview_side))
    if gate and not gate.accepted and not options.force:
        raise _refusal(gate, pictures)
    answer: dict[str, Any] = {
        "success": True,
        "prediction": {
            "predicted_class": prediction.predicted_class,
            "confidence": prediction.confidence,
            "all_probabilities": prediction.probabilities,
        },
        "model": dataclasses.asdict(service.identity),
        "gate": _describe(gate) if gate else None,
        "warnings": [_warning(gate)] if gate and not gate.accepted else [],
        **pictures,
    }
    if options.explain:
        name = options.class_name or prediction.predicted_class
        picture = service.explain(pixels, name, max_side=config.preview_side)
        answer["explanation"] = {"class": name, "image": _text(picture)}
    return answer


def _describe(gate: GateResult) -> dict[str, Any]:
    return {"accepted": gate.accepted, "score": gate.score, "threshold": gate.threshold}


def _refusal(gate: GateResult, pictures: dict[str, str]) -> ApiError:
    return ApiError(
        422,
        NOT_A_FILM,
        f"This image was not classified. {gate.reason}",
        details={
            "reason": gate.reason,
            "score": gate.score,
            "threshold": gate.threshold,
            **pictures,
        },
    )


def _warning(gate: GateResult) -> dict[str, str]:
    return {"code": NOT_A_FILM, "message": f"{gate.reason} The estimate may mean nothing."}


def _text(picture: bytes) -> str:
    return base64.b64encode(picture).decode("ascii")
