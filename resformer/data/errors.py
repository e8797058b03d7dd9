"""The one error of the data package."""

from __future__ import annotations


class DatasetError(ValueError):
    """A data set that cannot be used; the message names what to change."""
