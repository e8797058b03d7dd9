"""Data sets: found on disk, grouped by near-duplicates, split, kept as a manifest, loaded.

The modules are imported one by one, for what one needs of them: `archive` (open a folder or a
`.zip`), `discovery` (find the images), `manifest` (split and keep the split), `dataset` (train).
"""
