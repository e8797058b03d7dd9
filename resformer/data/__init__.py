"""Data sets: found on disk, grouped by near-duplicates, split, kept as a manifest, loaded.

The modules are imported one by one, for what one needs of them: ``unpack`` (open folders and
``.zip`` archives), ``find`` (their films), ``labels`` and ``readings`` (tables beside them),
``duplicates``, ``split`` and ``manifest`` (group, split, keep the split), ``masks`` and ``dataset``
(load), ``augment`` and ``surroundings`` (vary).
"""
