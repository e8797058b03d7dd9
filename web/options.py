"""What a client may choose about its answer, as query parameters or as fields of the body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from web.errors import ApiError
from web.service import ModelNotReadyError, ModelService

_FLAGS: dict[object, bool] = {
    **{"0": False, "false": False, 0: False},
    **{"1": True, "true": True, 1: True},
}


@dataclass(frozen=True)
class AnswerOptions:
    """What an answer shall hold.

    Attributes:
        preview: whether the decoded image goes back.
        explain: whether to say where the evidence for a class lies.
        class_name: the class to explain; None takes the predicted one.
        force: whether to answer although the image does not look like a chest X-ray.
    """

    preview: bool = True
    explain: bool = False
    class_name: str | None = None
    force: bool = False


_DEFAULT = AnswerOptions()


def read_options(values: Mapping[str, Any], default: AnswerOptions = _DEFAULT) -> AnswerOptions:
    """Read the options among parameters or fields of a request; what is no option is ignored.

    Raises:
        ApiError: 400 `bad_option` if one cannot be read, naming it and what is possible.
    """
    class_name = values.get("class", default.class_name)
    if class_name is not None and not isinstance(class_name, str):
        raise ApiError(400, "bad_option", "“class” must be the name of a class.")
    return AnswerOptions(
        preview=_read_flag(values, "preview", default.preview),
        explain=_read_flag(values, "explain", default.explain),
        class_name=class_name,
        force=_read_flag(values, "force", default.force),
    )


def check_class(name: str, service: ModelService) -> None:
    """Refuse a class that the model does not know.

    Raises:
        ApiError: 400 `unknown_class`, with the names of its classes.
        ModelNotReadyError: if the model is not loaded.
    """
    if not service.class_names:
        raise ModelNotReadyError
    if name not in service.class_names:
        raise ApiError(
            400,
            "unknown_class",
            f"The model does not know this class. It knows: {', '.join(service.class_names)}.",
        )


def _read_flag(values: Mapping[str, Any], name: str, default: bool) -> bool:
    value = values.get(name, default)
    flag = _FLAGS.get(value) if isinstance(value, str | int | float) else None
    if flag is None:
        raise ApiError(400, "bad_option", f"“{name}” must be 0 or 1.")
    return flag
