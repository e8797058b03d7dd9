"""Radiographs in DICOM files, with nothing of the patient leaving this package.

``recognition`` tells DICOM from other data by content and imports nothing heavy. ``decode`` is the
way in for the rest: ``read`` finds the attributes and the pixel data, ``codecs`` turns the pixel
data into stored values, ``greyscale`` turns those into what a radiologist would be shown,
``description`` reads what a viewer tells besides. It is imported when the first DICOM file comes,
because pydicom is not cheap to load.
"""
