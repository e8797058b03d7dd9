"""Folders and archives of films: found, answered one after the other, written down, gone on with.

:mod:`~resformer.archive.answers` finds films and says what the model answers of each. ``predict
--out`` writes that into a CSV of one row a film (:mod:`~resformer.archive.csv_table`). ``score`` is
for more films than a table of that kind holds: it lists them in parts
(:mod:`~resformer.archive.inputs`), and scores part by part
(:mod:`~resformer.archive.run`, :mod:`~resformer.archive.parquet_table`), on a cluster if there is
one (:mod:`~resformer.archive.cluster`).
"""
