"""Radiographs in DICOM files, with nothing of the patient leaving this package.

`recognition` tells DICOM from other data by content and imports nothing. `decoder` does the rest
and is imported when the first DICOM file comes, because pydicom is not cheap to load.
"""
