"""How much the training augmentation varies a film: moderately, strongly, or strongest."""

from __future__ import annotations

from dataclasses import dataclass, replace

Range = tuple[float, float]


@dataclass(frozen=True)
class AugmentationConfig:
    """How much each property of a film is varied; the default is moderate.

    Attributes:
        scale: factor of enlarging a film, in each direction alike.
        crop_probability: of cropping; the other films are shown whole, as they are served.
        crop_area: share of the film that a crop keeps.
        crop_ratio: width of a crop as a share of its height.
        brightness: largest change of brightness, as a share of the range.
        contrast: largest change of contrast, as a share.
        gamma: exponent of the grey levels, in per cent.
        tone: strength of the random tone curve.
        intensity_probability: of each change of brightness and contrast, and of gamma.
        tone_probability: of the tone curve.
        equalisation: clip limit of the equalisation of small areas (CLAHE).
        equalisation_probability: of it.
        illumination: strength of a gradient of brightness across the film.
        illumination_probability: of it.
        blur: standard deviation of the blur in pixels.
        downscale: factor of shrinking and enlarging again.
        sharpening: strength of sharpening and of unsharp masking.
        sharpness_probability: of one of blur, downscaling and the two kinds of sharpening.
        noise: standard deviation of the noise, as a share of the range.
        noise_probability: of noise, and of JPEG compression.
        jpeg_quality: quality of the compression.
        holes: most rectangles that are covered.
        hole_probability: of covering any.
    """

    scale: Range = (0.9, 1.15)
    crop_probability: float = 0.5
    crop_area: Range = (0.72, 1.0)
    crop_ratio: Range = (0.87, 1.15)
    brightness: float = 0.2
    contrast: float = 0.25
    gamma: Range = (60, 165)
    tone: float = 0.15
    intensity_probability: float = 0.5
    tone_probability: float = 0.3
    equalisation: Range = (1.0, 3.0)
    equalisation_probability: float = 0.0
    illumination: Range = (0.02, 0.15)
    illumination_probability: float = 0.0
    blur: Range = (0.4, 1.2)
    downscale: Range = (0.45, 0.85)
    sharpening: Range = (0.1, 0.5)
    sharpness_probability: float = 0.6
    noise: Range = (0.005, 0.04)
    noise_probability: float = 0.3
    jpeg_quality: tuple[int, int] = (40, 95)
    holes: int = 4
    hole_probability: float = 0.4


_STRONG = AugmentationConfig(
    scale=(0.8, 1.2),
    crop_area=(0.65, 1.0),
    crop_ratio=(0.75, 1.33),
    contrast=0.3,
    gamma=(50, 200),
    tone=0.25,
    tone_probability=0.5,
    equalisation_probability=0.2,
    illumination_probability=0.2,
    blur=(0.4, 1.4),
    downscale=(0.4, 0.9),
    sharpening=(0.1, 0.8),
    noise=(0.005, 0.05),
    jpeg_quality=(30, 95),
    holes=6,
)

STRENGTHS = {
    "moderate": AugmentationConfig(),
    "strong": _STRONG,
    # Tones alone: what another hospital's devices and their settings change most.
    "strongest": replace(
        _STRONG,
        brightness=0.3,
        contrast=0.4,
        intensity_probability=0.8,
        tone_probability=0.8,
        equalisation_probability=0.4,
        illumination=(0.03, 0.2),
        illumination_probability=0.4,
    ),
}
