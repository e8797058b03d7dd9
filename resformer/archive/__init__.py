"""Folders and archives of films: find films, classify them, write the answers, resume.

:mod:`~resformer.archive.answers` finds the films of a folder, and says what the model answers of
each file: for ``predict``, whose ``--out`` writes a CSV of one row per film
(:mod:`~resformer.archive.csv_table`), and for ``score``. That is for more films than such a table
holds: it lists them in parts (:mod:`~resformer.archive.inputs`), and scores part by part
(:mod:`~resformer.archive.run`, :mod:`~resformer.archive.parquet_table`), with ``--cluster`` on many
machines (:mod:`~resformer.archive.cluster`).
"""
