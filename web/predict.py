"""``POST /predict`` and ``/predict/batch``: images in, probabilities and previews out."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, jsonify, request

from resformer.images import decode_described, encode_preview, preview_size
from web.batching import Pipeline, Pixels, Turn
from web.config import WebConfig
from web.errors import API_VERSION, ApiError, as_api_error
from web.monitoring import Metrics
from web.reload import ServedModel
from web.requests import read_batch, read_file, read_image, read_options
from web.schemas import (
    Answer,
    AnswerWarning,
    Dicom,
    Explanation,
    Gate,
    Model,
    Options,
    Prediction,
    TrackRecord,
)
from web.security import client_of
from web.service import ModelService

if TYPE_CHECKING:
    from resformer import predict as network
    from resformer.dicom.description import DicomDescription
    from resformer.gate import GateResult
    from resformer.orientation import Correction, Orientation


@dataclass(frozen=True)
class _Kept:
    """What an answer needs of an image once the network has seen it.

    Attributes:
        preview: the picture that goes back; None if it is not asked for.
        small: the image as the explanation looks at it; None if it is not asked for.
        size: width and height of the preview.
        dicom: what a DICOM file says of the image; None of another file.
    """

    preview: str | None
    small: Pixels | None
    size: tuple[int, int]
    dicom: DicomDescription | None


def create_blueprint(
    config: WebConfig,
    served: ServedModel,
    pipeline: Pipeline,
    metrics: Metrics,
) -> Blueprint:
    """Return the routes that programs and the page's own script call."""
    blueprint = Blueprint("predict", __name__)

    def choose(fields: dict[str, Any], service: ModelService) -> Options:
        asked, options = read_options(fields, Options)
        for name in (asked.class_name, options.class_name):
            if name is not None:
                service.check_class(name)
        if (options.window_center is None) != (options.window_width is None):
            raise ApiError(
                "bad_option",
                "“window_center” and “window_width” go together: send both or neither.",
            )
        return options

    def decode(
        read: Callable[[], bytes], options: Options, service: ModelService
    ) -> tuple[Pixels, Callable[[], _Kept]]:
        image = decode_described(read(), max_pixels=config.max_pixels, window=options.window)
        if options.window and not image.dicom:
            raise ApiError(
                "bad_option",
                "“window_center” and “window_width” are for DICOM files, and this is not one.",
            )
        pixels = options.correction.apply(image.pixels)
        shown = pixels if image.windowed is None else options.correction.apply(image.windowed)
        side = config.preview_side if isinstance(options.preview, bool) else options.preview
        return pixels, lambda: _Kept(
            _as_text(encode_preview(shown, max_side=side)) if options.preview else None,
            service.shrink(pixels) if options.explain else None,
            preview_size(pixels.shape, max_side=side),
            image.dicom and image.dicom.rotated(options.rotate),
        )

    def answer(
        kept: _Kept,
        prediction: network.Prediction,
        options: Options,
        service: ModelService,
        turn: Turn,
    ) -> dict[str, Any]:
        explanation = None
        orientation = find_orientation(prediction, options.correction, turn)
        if prediction.gate and not prediction.gate.accepted and not options.force:
            raise refuse_picture(
                prediction.gate, orientation, kept.dicom, "classified", kept.preview
            )
        if kept.small is not None:
            name = options.class_name or prediction.predicted_class
            picture = turn.run(partial(service.explain, kept.small, name, kept.size))
            explanation = Explanation(
                class_name=name, image=_as_text(picture), lungs=service.outline(prediction)
            )
        record = prediction.track_record
        metrics.observe_prediction(prediction)
        optional: dict[str, Any] = {"image": kept.preview, "explanation": explanation}
        return Answer(
            success=True,
            api_version=API_VERSION,
            prediction=Prediction(
                predicted_class=prediction.predicted_class,
                confidence=prediction.confidence,
                abstained=prediction.abstained,
                reason=prediction.reason,
                all_probabilities=prediction.probabilities,
                track_record=TrackRecord(called=record.called, right=record.right)
                if record
                else None,
            ),
            model=Model(**service.identity),
            gate=_describe(prediction.gate, orientation) if prediction.gate else None,
            warnings=_warnings(prediction, orientation),
            dicom=_describe_dicom(kept.dicom),
            **{name: value for name, value in optional.items() if value is not None},
        ).model_dump(by_alias=True, exclude_unset=True)

    @blueprint.post("/predict")
    def predict() -> Response:
        service = served.current
        # Before the form is read, so that who is turned away costs nothing. A batch is read
        # first: its number of files counts.
        with pipeline.enter(client_of(request.remote_addr), service.predict) as turn:
            data, fields = read_image(config.max_bytes)
            options = choose(fields, service)
            kept, prediction = turn.classify(partial(decode, lambda: data, options, service))
            return jsonify(answer(kept, prediction, options, service, turn))

    @blueprint.post("/predict/batch")
    def predict_batch() -> Response:
        service = served.current
        if not service.class_names:
            raise ApiError("model_not_ready")
        files, fields = read_batch(config.max_files)
        options = choose(fields, service)
        reads = [partial(read_file, uploaded, config.max_bytes) for uploaded in files]
        results: list[dict[str, Any]] = []
        decodes = [partial(decode, read, options, service) for read in reads]
        with pipeline.enter(client_of(request.remote_addr), service.predict, len(files)) as turn:
            for outcome in turn.classify_all(decodes):
                try:
                    if isinstance(outcome, Exception):
                        raise outcome
                    result = answer(*outcome, options, service, turn)
                except Exception as error:
                    refusal = as_api_error(error)
                    metrics.refusals.labels(refusal.code).inc()
                    result = refusal.body
                index = len(results)
                results.append({"index": index, "name": files[index].filename, **result})
        return jsonify(success=True, api_version=API_VERSION, results=results)

    return blueprint


def find_orientation(
    prediction: network.Prediction, done: Correction, turn: Turn
) -> Orientation | None:
    """Return how an image lies that is refused for that, and all that has to be done to it.

    Args:
        prediction: of the corrected image.
        done: what was done to it.
        turn: of the request: where the image is refused, the network runs once more.
    """
    if prediction.gate is None or prediction.gate.accepted:
        return None
    found = turn.run(prediction.find_orientation)
    return found and replace(found, correction=done.then(found.correction))


def _describe(gate: GateResult, orientation: Orientation | None) -> Gate:
    return Gate(
        accepted=gate.accepted,
        score=gate.score,
        threshold=gate.threshold,
        **_describe_orientation(orientation),
    )


def _describe_orientation(orientation: Orientation | None) -> dict[str, Any]:
    return {
        "orientation": orientation and orientation.name,
        "correction": orientation and asdict(orientation.correction),
    }


def _describe_dicom(dicom: DicomDescription | None) -> Dicom | None:
    return Dicom(**asdict(dicom)) if dicom else None


def refuse_picture(
    gate: GateResult,
    orientation: Orientation | None,
    dicom: DicomDescription | None,
    what: str,
    preview: str | None = None,
) -> ApiError:
    """Return the refusal of what is no upright film: what was not done with it, and its picture."""
    told = _describe_dicom(dicom)
    reason = orientation.sentence if orientation else gate.reason
    details: dict[str, Any] = {
        "reason": reason,
        "score": gate.score,
        "threshold": gate.threshold,
        **_describe_orientation(orientation),
        "dicom": told and told.model_dump(),
    }
    if preview is not None:
        details["image"] = preview
    return ApiError("not_a_chest_xray", f"This image was not {what}. {reason}", details=details)


def _warnings(
    prediction: network.Prediction, orientation: Orientation | None
) -> list[AnswerWarning]:
    # With the module comes PyTorch, which a forking server does without until the model is loaded.
    from resformer.predict import list_warnings

    return [
        AnswerWarning(code=code, message=message)
        for code, message in list_warnings(prediction, orientation).items()
    ]


def _as_text(picture: bytes) -> str:
    return base64.b64encode(picture).decode("ascii")
