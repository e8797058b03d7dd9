"""What requests and answers hold, described once: read, built and documented from here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticUseDefault
from typing_extensions import TypeAliasType

from resformer.dicom.description import LARGEST_WINDOW_NUMBER, MAX_WINDOWS
from resformer.images import MAX_PREVIEW_SIDE
from resformer.orientation import ROTATIONS, Correction

_FLAGS: dict[object, bool] = {
    **dict.fromkeys(("0", "false", "no", "off", 0), False),
    **dict.fromkeys(("1", "true", "yes", "on", 1), True),
}
_BASE64 = (
    "Standard or URL-safe, with or without padding and line breaks; a data URL "
    "(`data:image/png;base64,…`) too."
)


_ROTATIONS: dict[object, int] = {r: r for r in ROTATIONS} | {str(r): r for r in ROTATIONS}


def _read_flag(value: object) -> bool:
    known = value.lower() if isinstance(value, str) else value
    if known in (None, "null"):
        raise PydanticUseDefault
    flag = _FLAGS.get(known) if isinstance(known, str | int | float) else None
    if flag is None:
        raise ValueError("no flag")
    return flag


def _read_rotation(value: object) -> int:
    if value in (None, "null"):
        raise PydanticUseDefault
    # A flag is a number too, but no angle.
    angle = isinstance(value, str | int | float) and not isinstance(value, bool)
    rotation = _ROTATIONS.get(value) if angle else None
    if rotation is None:
        raise ValueError("no quarter turn")
    return rotation


def _read_window_number(value: object) -> float:
    if value in (None, "null"):
        raise PydanticUseDefault
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("no number")
    number = float(value) if isinstance(value, str) else value
    if not abs(number) <= LARGEST_WINDOW_NUMBER:  # nor is "nan"
        raise ValueError("no such window")
    return float(number)


def _read_window_width(value: object) -> float:
    width = _read_window_number(value)
    if width <= 0:
        raise ValueError("no such window")
    return width


def _document(description: str, *kinds: dict[str, Any], **more: str) -> WithJsonSchema:
    """Describe a value of one of some kinds, or null."""
    return WithJsonSchema({**more, "description": description, "anyOf": [*kinds, {"type": "null"}]})


_WINDOW_NUMBER = (
    "In the values that the rescale or the modality LUT of the file makes. Null is none."
)
_FLAG_WORDS = {"type": "string", "enum": [*(f for f in _FLAGS if isinstance(f, str)), "null"]}


def _read_preview(value: object) -> bool | int:
    text = str(value) if isinstance(value, str | int) else ""
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_PREVIEW_SIDE))
    if is_number and 1 < int(text) <= MAX_PREVIEW_SIDE:
        return int(text)
    return _read_flag(value)


ClassName = TypeAliasType(
    "ClassName", Annotated[str, Field(strict=True, description="A class of the model.")]
)
Code = TypeAliasType("Code", Annotated[str, Field(description="What is wrong, for programs.")])
Flag = TypeAliasType(
    "Flag",
    Annotated[
        bool,
        BeforeValidator(_read_flag),
        _document(
            "False or true; 0 or 1 as well. Null is the default.",
            {"type": "boolean"},
            {"type": "integer", "enum": [0, 1]},
            _FLAG_WORDS,
            title="0 or 1",
        ),
    ],
)
Rotation = TypeAliasType(
    "Rotation",
    Annotated[
        int,
        BeforeValidator(_read_rotation),
        _document(
            "Degrees clockwise. Null is the default.",
            {"type": "integer", "enum": list(ROTATIONS)},
            {"type": "string", "enum": [*map(str, ROTATIONS), "null"]},
            title="0, 90, 180 or 270",
        ),
    ],
)
_CENTRES = {"minimum": -LARGEST_WINDOW_NUMBER, "maximum": LARGEST_WINDOW_NUMBER}
WindowCenter = TypeAliasType(
    "WindowCenter",
    Annotated[
        float,
        BeforeValidator(_read_window_number),
        _document(_WINDOW_NUMBER, {"type": "number", **_CENTRES}, {"type": "string"}),
    ],
)
_WIDTHS = {"exclusiveMinimum": 0, "maximum": LARGEST_WINDOW_NUMBER}
WindowWidth = TypeAliasType(
    "WindowWidth",
    Annotated[
        float,
        BeforeValidator(_read_window_width),
        _document(_WINDOW_NUMBER, {"type": "number", **_WIDTHS}, {"type": "string"}),
    ],
)
ApiVersion = Annotated[
    str, Field(description="Of this interface, as in `/v1`; it changes where an answer would.")
]
Preview = TypeAliasType(
    "Preview",
    Annotated[
        bool | int,
        BeforeValidator(_read_preview),
        _document(
            "False or true, as 0 or 1; or the longer side in pixels. Null is the default.",
            {"type": "boolean"},
            {"type": "integer", "minimum": 0, "maximum": MAX_PREVIEW_SIDE},
            _FLAG_WORDS,
            title=f"0, 1 or up to {MAX_PREVIEW_SIDE}",
        ),
    ],
)

Probability = Annotated[float, Field(ge=0, le=1)]
Score = Annotated[
    Probability, Field(description="How much the image is like an upright frontal chest X-ray.")
]
Threshold = Annotated[Probability, Field(description="The lowest score that is accepted.")]
Picture = Annotated[
    str, Field(json_schema_extra={"contentEncoding": "base64", "contentMediaType": "image/png"})
]
BINARY = {"type": "string", "format": "binary", "description": "A file, whatever its name."}
# Its only use is in documents: files are read by `web.requests`.
_File = Annotated[Any, WithJsonSchema(BINARY)]
_Base64 = Annotated[
    str, Field(description=_BASE64, json_schema_extra={"contentEncoding": "base64"})
]


class _Schema(BaseModel):
    """Takes the docstring under a field as its description."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class _Choices(_Schema):
    """Has no other fields: a name that is misspelt is refused, not ignored."""

    model_config = ConfigDict(extra="forbid")


class Turning(_Choices):
    """What is done to an image first, as query parameters or as fields of the body."""

    invert: Flag = False
    """1 exchanges black and white first."""
    rotate: Rotation = 0
    """Turns the image clockwise first."""

    @property
    def correction(self) -> Correction:
        """The two as one."""
        return Correction(self.invert, self.rotate)


class Options(Turning):
    """What a client may choose about its answer, as query parameters or as fields of the body."""

    preview: Preview = True
    """0 leaves the picture of the decoded image out; a number from 2 is its longer side in pixels,
    where the image is as large."""
    explain: Flag = False
    """1 adds a picture of where the evidence for a class lies."""
    class_name: ClassName | SkipJsonSchema[None] = Field(None, validation_alias="class")
    """The class to explain; without it, the predicted one."""
    force: Flag = False
    """1 answers although the image does not look like a chest X-ray."""
    window_center: WindowCenter | SkipJsonSchema[None] = None
    """The middle of a window through which the picture of a DICOM image is shown; it goes with
    `window_width`. The prediction stays as it is."""
    window_width: WindowWidth | SkipJsonSchema[None] = None
    """The width of that window."""

    @property
    def window(self) -> tuple[float, float] | None:
        """Center and width, where both are given."""
        if self.window_center is None or self.window_width is None:
            return None
        return self.window_center, self.window_width


class PredictForm(Options):
    """One image with its options, as a form."""

    file: _File


class PredictJson(Options):
    """One image with its options, as JSON."""

    image: _Base64


class BatchForm(Options):
    """Several images with options that hold for all of them, as a form."""

    files: list[_File] = Field(min_length=1)
    """Files, whatever their names."""


class FeedbackClass(Turning):
    """The class under which an image is kept, upright."""

    class_name: ClassName | SkipJsonSchema[None] = Field(None, validation_alias="class")
    """The class that the image shows."""


class FeedbackForm(FeedbackClass):
    """An image with its right class, as a form."""

    file: _File


class FeedbackJson(FeedbackClass):
    """An image with its right class, as JSON."""

    image: _Base64


class TrackRecord(_Schema):
    """How often the model was right when it named this class without a warning."""

    called: int = Field(ge=1)
    """Films of its test split that it named the class for."""
    right: int = Field(ge=0)
    """Of these, films that were labelled so."""


class Prediction(_Schema):
    """The model's estimate; not the chance that a person is ill."""

    predicted_class: ClassName
    """The most probable class."""
    confidence: Probability
    """Its probability by the model."""
    abstained: bool
    """Whether its probabilities are not to be relied on; a warning says so too. False where the
    model has no abstention."""
    reason: Literal["undecided", "unfamiliar"] | None
    """Why it abstained: undecided, the classes are close; unfamiliar, the film is unlike those of
    the training. Null where it did not."""
    all_probabilities: dict[str, Probability]
    """By class; they sum to 1."""
    track_record: TrackRecord | None
    """Null beside a warning, and where the checkpoint does not tell."""


class Model(_Schema):
    """Which model answered."""

    name: str
    version: str = Field(pattern="^[0-9a-f]{12}$")
    """Of the network: the beginning of the fingerprint of its weights and its preprocessing."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Of the checkpoint file: changes also with the gate, the thresholds and the report in it."""


class OptionsOfCorrection(_Schema):
    """The options with which to send the image again."""

    invert: bool
    rotate: Literal[0, 90, 180, 270]


OrientationName = Annotated[
    Literal["inverted", "sideways", "upside_down", "inverted_sideways", "inverted_upside_down"]
    | None,
    Field(
        description="How a refused image lies that would be accepted upright. Null where it is "
        "accepted, or would be refused in any orientation."
    ),
]
CorrectionOptions = Annotated[
    OptionsOfCorrection | None,
    Field(description="What puts it right; null where the orientation is."),
]


class Gate(_Schema):
    """Does the image look like a frontal chest X-ray?"""

    accepted: bool
    """Whether the image looks like a frontal chest X-ray."""
    score: Score
    threshold: Threshold
    orientation: OrientationName
    correction: CorrectionOptions


class AnswerWarning(_Schema):
    """Why to trust the answer less."""

    code: Literal["not_a_chest_xray", "uncertain"]
    message: str
    """For people."""


class Explanation(_Schema):
    """Where the evidence for a class lies."""

    class_name: ClassName = Field(serialization_alias="class")
    """The class that is explained."""
    image: Picture
    """A transparent picture of the preview's size, to lay over it."""
    lungs: list[list[Annotated[list[Probability], Field(min_length=2, max_length=2)]]]
    """Outlines of the lungs that the model found, each a closed polygon of points x, y in shares of
    the image's width and height. Empty where it found none, or does not look for them."""


class DicomWindow(_Schema):
    """A window that the file offers."""

    name: str = Field(max_length=40)
    """For people; empty where the file gives none."""
    center: float
    width: float


class Dicom(_Schema):
    """What a DICOM file says of the image; nothing of the patient."""

    modality: str | None = Field(max_length=16)
    view: str | None = Field(max_length=16)
    """View Position, such as PA or AP."""
    laterality: Literal["R", "L", "B", "U"] | None
    """Right, left, both, or unpaired."""
    size: Annotated[list[int], Field(min_length=2, max_length=2)]
    """Rows and columns of the image, turned as asked: the preview may be smaller."""
    pixel_spacing: Annotated[list[float], Field(min_length=2, max_length=2)] | None
    """Distance in mm of the rows, and of the columns: Pixel Spacing; without it Imager Pixel
    Spacing, which is that at the detector, where the body appears larger than it is."""
    windows: list[DicomWindow] = Field(max_length=MAX_WINDOWS)


class Answer(_Schema):
    """What the model makes of an image."""

    success: Literal[True]
    api_version: ApiVersion
    prediction: Prediction
    model: Model
    gate: Gate | None
    """Null where the model has no gate."""
    warnings: list[AnswerWarning]
    dicom: Dicom | None
    """Null where the file is no DICOM."""
    image: Picture | SkipJsonSchema[None] = None
    """The decoded image, scaled down if it is large."""
    explanation: Explanation | SkipJsonSchema[None] = None


class Error(_Schema):
    """What is wrong."""

    success: Literal[False]
    error: str
    """What is wrong, for people."""
    code: Code


class Refusal(_Schema):
    """The image does not look like a frontal chest X-ray."""

    success: Literal[False]
    error: str
    """What is wrong, for people."""
    code: Literal["not_a_chest_xray"]
    reason: str
    """Why, for people."""
    score: Score
    threshold: Threshold
    orientation: OrientationName
    correction: CorrectionOptions
    dicom: Dicom | None
    """Null where the file is no DICOM."""
    image: Picture | SkipJsonSchema[None] = None
    """The decoded image, unless `preview=0`."""


class _InBatch(_Schema):
    index: int = Field(ge=0)
    """Of the file, from 0, in the order in which the files came."""
    name: str
    """Of the file, as it was sent."""


class FileAnswer(Answer, _InBatch):
    """What the model makes of one file of a batch."""


class FileRefusal(Refusal, _InBatch):
    """A file of a batch that does not look like a frontal chest X-ray."""


class FileError(Error, _InBatch):
    """What is wrong with one file of a batch."""


class BatchAnswer(_Schema):
    """What became of each file."""

    success: Literal[True]
    api_version: ApiVersion
    results: list[FileAnswer | FileRefusal | FileError]
    """One for each file, in their order."""


class FeedbackAnswer(_Schema):
    """What was kept."""

    success: Literal[True]
    class_name: ClassName = Field(serialization_alias="class")


class Status(_Schema):
    """The state of the service."""

    status: Literal["ok", "ready"]


class ModelCard(Model):
    """What the checkpoint tells of itself; what a training wrote is described in words."""

    classes: list[str]
    parameters: int
    """Weights that were learned."""
    input: dict[str, Any]
    """Size and normalisation of the input."""
    network: dict[str, Any]
    """Everything that describes the network."""
    temperature: float
    """Divides the logits (calibration)."""
    gate: dict[str, Any] | None
    """What decides on refusal."""
    abstention: dict[str, Any] | None
    """The thresholds that decide whether a film is abstained on."""
    metrics: dict[str, Any]
    """Reports by split: estimates with bootstrap intervals; under report, those of other hospitals,
    controls and sources."""
    training: dict[str, Any]
    """Films by split, configuration, best epoch and history."""
    earlier_trainings: list[dict[str, Any]]
    """Those whose weights it started from, oldest first, told alike."""
    versions: dict[str, str]
    """Of the libraries that trained it."""
    intended_use: str
    limitations: list[str]
    limits: dict[str, int]
    """What a request may hold."""
