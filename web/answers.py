"""What the application says about one image."""

from __future__ import annotations

import base64
import dataclasses
from typing import TYPE_CHECKING, Any

from resformer.gate.gate import GateResult
from resformer.images import decode_image, encode_preview
from web.config import WebConfig
from web.errors import ApiError
from web.options import AnswerOptions
from web.service import ModelService

if TYPE_CHECKING:
    from resformer.predict import Prediction

NOT_A_FILM = "not_a_chest_xray"
UNCERTAIN = "uncertain"


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
            "abstained": prediction.abstained,
            "all_probabilities": prediction.probabilities,
        },
        "model": dataclasses.asdict(service.identity),
        "gate": _describe(gate) if gate else None,
        "warnings": _warnings(prediction),
        **pictures,
    }
    if options.explain:
        name = options.class_name or prediction.predicted_class
        picture = service.explain(pixels, name, max_side=config.preview_side)
        lungs = service.outline(prediction)
        answer["explanation"] = {"class": name, "image": _text(picture), "lungs": lungs}
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


def _warnings(prediction: Prediction) -> list[dict[str, str]]:
    gate, messages = prediction.gate, {}
    if gate and not gate.accepted:
        messages[NOT_A_FILM] = f"{gate.reason} The estimate may mean nothing."
    if prediction.abstained:
        messages[UNCERTAIN] = (
            "Uncertain: the model has not seen enough films like this one. "
            "Do not rely on its probabilities."
        )
    return [{"code": code, "message": message} for code, message in messages.items()]


def _text(picture: bytes) -> str:
    return base64.b64encode(picture).decode("ascii")
