"""Files of every format, spoilt by hypothesis: refused as documented, and the next one works."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.web.hostile import FILES, FILES_OF_GDCM, check, send


@pytest.mark.parametrize("kind", ["form", "body", "JSON"])
@pytest.mark.parametrize("name", [*FILES, *FILES_OF_GDCM])
def test_the_files_are_good(small_client: FlaskClient, name: str, kind: str) -> None:
    assert send(small_client, (FILES | FILES_OF_GDCM)[name], kind).status_code == 200


def mutate(whole: bytes, data: st.DataObject) -> bytes:
    """Change, cut out, repeat and insert bytes, and cut the end off."""
    mutant = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(mutant)))
        end = min(len(mutant), start + data.draw(st.sampled_from([1, 1, 2, 4, 16, 64])))
        change = data.draw(st.sampled_from(["flip", "replace", "drop", "repeat", "insert"]))
        if change == "flip" and start < end:
            mutant[start] ^= 1 << data.draw(st.integers(0, 7))
        elif change == "replace":
            mutant[start:end] = data.draw(st.sampled_from([b"\0", b"\xff"])) * (end - start)
        elif change == "drop":
            del mutant[start:end]
        elif change == "repeat":
            mutant[start:start] = mutant[start:end] * 3
        elif change == "insert":
            mutant[start:start] = data.draw(st.binary(max_size=8))
    return bytes(mutant[: data.draw(st.sampled_from([len(mutant)] * 3 + [len(mutant) // 2]))])


MANY = settings(
    max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
FEW = settings(MANY, max_examples=6)  # a process for each


@pytest.mark.parametrize("name", FILES)
@MANY
@given(data=st.data(), kind=st.sampled_from(["form", "body", "JSON"]))
def test_mutants(
    small_client: FlaskClient, small_app_works: None, name: str, data: st.DataObject, kind: str
) -> None:
    check(send(small_client, mutate(FILES[name], data), kind), small_client)


@pytest.mark.parametrize("name", FILES_OF_GDCM)
@FEW
@given(data=st.data())
def test_mutants_for_the_separate_decoder(
    small_client: FlaskClient, small_app_works: None, name: str, data: st.DataObject
) -> None:
    check(send(small_client, mutate(FILES_OF_GDCM[name], data), "body"), small_client)


@MANY
@given(
    parts=st.lists(st.sampled_from(sorted(FILES)), min_size=2, max_size=3),
    cuts=st.lists(st.integers(0, 400), min_size=3, max_size=3),
)
def test_pieces_of_several_formats(
    small_client: FlaskClient, small_app_works: None, parts: list[str], cuts: list[int]
) -> None:
    mixed = b"".join(FILES[name][:cut] for name, cut in zip(parts, cuts, strict=False))
    check(send(small_client, mixed, "form"), small_client)
    check(send(small_client, FILES[parts[0]] + FILES[parts[1]], "form"), small_client)
