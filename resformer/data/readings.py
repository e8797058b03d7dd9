"""What a radiologist's reading says for or against the class that a film is labelled with.

A label need not be what the film shows. COVID is a laboratory test of the patient: the readers of
SIIM-FISABIO-RSNA (Lakhani et al., J. Digital Imaging 36 (2023) 365) found a quarter of such films
without pneumonia, and others without the pattern of COVID. The readers of RSNA's challenge (Shih et
al., Radiology: AI 1 (2019) e180041) saw no opacity on a fifth of the films that the COVID-19
Radiography Database calls Lung_Opacity. So films whose reading contradicts their label are not
learnt from, and the report tells what becomes of them.

Known are the words of these two, and names of classes. Small and capital letters are alike.
"""

from __future__ import annotations

from collections.abc import Sequence

HEALTHY_CLASS = "Normal"

_NOTHING_FOUND = ("negative", "normal", "no finding")
_SUPPORTED = {"typical": "covid", "atypical": "lung opacity", "opacity": "lung opacity"}
# What a reading begins with that contradicts a class without supporting another.
_UNSUPPORTED = {
    "COVID": (*_NOTHING_FOUND, "indeterminate", "atypical"),
    "Lung_Opacity": (*_NOTHING_FOUND, "no opacity"),
}


def finds_nothing(reading: str) -> bool:
    """Return whether the readers saw nothing of what they looked for."""
    return reading.lower().startswith(_NOTHING_FOUND)


def read_as(reading: str, class_names: Sequence[str], healthy_class: str) -> str | None:
    """Return the class that a reading supports; None where it supports none, or is not known."""
    text = " ".join(reading.lower().replace("_", " ").split())
    names = {name.lower().replace("_", " "): name for name in class_names}
    if finds_nothing(text):
        text = healthy_class.lower()
    return names.get(_SUPPORTED.get(text, text))


def contradicts(
    label: str,
    reading: str,
    class_names: Sequence[str],
    healthy_class: str = HEALTHY_CLASS,
) -> bool:
    """Return whether a reading contradicts a label: it supports another class, or none of it."""
    if reading.lower() == "opacity":  # which the films of every ill class may show
        return label == healthy_class
    unsupported = reading.lower().startswith(_UNSUPPORTED.get(label, ()))
    return unsupported or read_as(reading, class_names, healthy_class) not in (None, label)
