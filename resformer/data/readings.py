"""What a radiologist's reading says for or against the class that a film is labelled with.

A label need not be what the film shows. COVID is a laboratory test of the patient: the readers of
SIIM-FISABIO-RSNA (Lakhani et al., J. Digital Imaging 36 (2023) 365) found a quarter of such films
without pneumonia, and others without the pattern of COVID. The readers of RSNA's challenge (Shih et
al., Radiology: AI 1 (2019) e180041) saw no opacity on a fifth of the films that the COVID-19
Radiography Database calls Lung_Opacity. So films whose reading contradicts their label are not
learnt from, and the report tells what becomes of them.

Known are the words of these two, with whatever follows them, and names of classes. Small and
capital letters, underscores and blanks are alike.
"""

from __future__ import annotations

from collections.abc import Sequence

HEALTHY_CLASS = "Normal"

_HEALTHY = ("negative", "normal", "no finding")
# What the films of every ill class may show.
_ANY_OPACITY = ("opacity", "lung opacity")
_PATTERNS = {"typical": "covid", "atypical": "lung opacity"} | dict.fromkeys(
    _ANY_OPACITY, "lung opacity"
)
# What a reading begins with that contradicts a class without supporting another.
_UNSUPPORTED = {
    "covid": (*_HEALTHY, "indeterminate", "atypical"),
    "lung opacity": (*_HEALTHY, "no opacity", "no lung opacity"),
}


def _plain(text: str) -> str:
    return " ".join(text.lower().replace("_", " ").split())


def is_healthy(reading: str) -> bool:
    """Return whether a reading calls a film healthy."""
    return _plain(reading).startswith(_HEALTHY)


def read_as(reading: str, class_names: Sequence[str], healthy_class: str) -> str | None:
    """Return the class that a reading supports; None where it supports none, or is not known."""
    text = _plain(reading)
    names = {_plain(name): name for name in class_names}
    if text in names:
        return names[text]
    if is_healthy(text):
        return names.get(_plain(healthy_class))
    supported = (name for start, name in _PATTERNS.items() if text.startswith(start))
    return names.get(next(supported, ""))


def contradicts(
    label: str,
    reading: str,
    class_names: Sequence[str],
    healthy_class: str = HEALTHY_CLASS,
) -> bool:
    """Return whether a reading contradicts a label: it supports another class, or none of it."""
    text = _plain(reading)
    if text.startswith(_ANY_OPACITY):
        return label == healthy_class
    unsupported = text.startswith(_UNSUPPORTED.get(_plain(label), ()))
    return unsupported or read_as(reading, class_names, healthy_class) not in (None, label)
