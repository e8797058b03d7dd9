"""Many images at once: batches through the network, a bounded queue, and none spoils another.

Batches are seen as an operator sees them, in ``/metrics``, or by the model itself.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from resformer.images import decode_described
from resformer.images.decode import DecodedImage
from resformer.predict import Prediction
from tests.web.conftest import SMALL
from tests.web.posting import (
    CONTENT_TYPE,
    PATIENCE,
    check_refusal,
    encode,
    figures,
    form,
    post_batch,
    post_file,
)
from tests.web.test_refusals import BAD_FILES, BAD_NAMES
from web import create_app
from web.batching import LARGEST_BATCH, Pixels
from web.security import client_of
from web.service import ModelService

FILMS = [encode(96), encode(200), encode(kind="JPEG")]


class TestModel(ModelService):
    """The tiny model: it answers when it may, fails on films of one width, and keeps count."""

    __test__ = False

    def __init__(self, path: Path) -> None:
        super().__init__(path, "cpu")
        self.load()
        self.sizes: list[int] = []
        self.seconds = 0.0
        self.fails_on = 0
        self.has_begun, self.may_answer = threading.Event(), threading.Event()
        self.may_answer.set()

    def predict(self, films: Sequence[Pixels]) -> list[Prediction]:
        self.sizes.append(len(films))
        self.has_begun.set()
        assert self.may_answer.wait(PATIENCE)
        time.sleep(self.seconds)
        if self.fails_on in [film.shape[1] for film in films]:
            raise ValueError("secret")
        return super().predict(films)


@pytest.fixture
def model(tiny_checkpoint: Path) -> Iterator[TestModel]:
    service = TestModel(tiny_checkpoint)
    yield service
    service.may_answer.set()


@pytest.fixture
def serve(model: TestModel) -> Callable[..., FlaskClient]:
    """Make a client of an application with some limits around the model."""

    def make(**limits: float) -> FlaskClient:
        settings: dict[str, Any] = limits
        return create_app(dataclasses.replace(SMALL, **settings), model).test_client()

    return make


@pytest.fixture
def client(client_with: Callable[..., FlaskClient]) -> FlaskClient:
    return client_with(max_files=4)


@pytest.fixture
def ask() -> Iterator[Callable[..., Future[TestResponse]]]:
    """Send something from a thread of its own, with a client of its own."""
    with ThreadPoolExecutor(32) as threads:

        def submit(
            post: Callable[..., TestResponse], client: FlaskClient, *files: bytes
        ) -> Future[TestResponse]:
            return threads.submit(post, client.application.test_client(), *files)

        yield submit


def codes(response: TestResponse) -> list[str]:
    assert response.status_code == 200
    return [result.get("code", "") for result in response.get_json()["results"]]


def occupy(model: TestModel, client: FlaskClient) -> None:
    """Let the model think about a film, however busy the machine is; nobody waits for it."""
    model.may_answer.clear()
    while not model.has_begun.is_set():
        refused = post_file(client, FILMS[0])
        check_refusal(refused, 503, "timeout", "Try again")
        assert refused.headers["Retry-After"] == "5"


def check_same(answer: dict[str, Any], alone: dict[str, Any]) -> None:
    """Answers are alike but for rounding, which depends on the company in a batch."""
    shares, expected = (a["prediction"].pop("all_probabilities") for a in (answer, alone))
    assert shares == pytest.approx(expected, abs=1e-6)
    for one in (answer, alone):
        del one["prediction"]["confidence"]
    assert answer == alone


def without_place(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in ("index", "name")}


def test_every_file_gets_what_it_would_get_alone_in_order_and_by_its_name(
    client: FlaskClient,
) -> None:
    names = ["Ω ünder.png", "twice.png", "twice.png"]
    body = form([("files", name, data) for name, data in zip(names, FILMS, strict=True)])
    answer = client.post("/v1/predict/batch", data=body, content_type=CONTENT_TYPE)
    results = answer.get_json()["results"]
    assert [(result["index"], result["name"]) for result in results] == list(enumerate(names))
    for result, film in zip(results, FILMS, strict=True):
        check_same(without_place(result), post_file(client, film).get_json())


@pytest.mark.parametrize("data", [data for data, *_ in BAD_FILES[:-1]], ids=BAD_NAMES[:-1])
def test_a_bad_file_spoils_no_other(client: FlaskClient, data: bytes) -> None:
    results = post_batch(client, FILMS[0], data, FILMS[1]).get_json()["results"]
    first, bad, last = map(without_place, results)
    assert bad == post_file(client, data).get_json()
    assert bad["success"] is False
    check_same(first, post_file(client, FILMS[0]).get_json())
    check_same(last, post_file(client, FILMS[1]).get_json())


def test_options_hold_for_all_files(client: FlaskClient) -> None:
    answer = post_batch(client, *FILMS[:2], query="preview=0&explain=1", **{"class": "Normal"})
    for result in answer.get_json()["results"]:
        assert "image" not in result
        assert result["explanation"]["class"] == "Normal"


def test_a_batch_is_a_form_with_a_few_files(client: FlaskClient) -> None:
    assert len(post_batch(client, *[FILMS[0]] * 4).get_json()["results"]) == 4
    for number in (5, 60):
        response = post_batch(client, *[FILMS[0]] * number)
        check_refusal(response, 413, "too_many_files", "Up to 4 files can be sent at once")
    check_refusal(post_batch(client, *[bytes(2**20)] * 2), 413, "upload_too_large", "up to 1 MB")
    check_refusal(client.post("/predict/batch"), 400, "no_file", "send it as “files”")
    body = form([("file", "film.png", FILMS[0])])
    response = client.post("/predict/batch", data=body, content_type=CONTENT_TYPE)
    check_refusal(response, 400, "no_file", "send it as “files”")
    for kind in ("application/json", "image/png", "text/plain"):
        response = client.post("/predict/batch", data=b"{}", content_type=kind)
        check_refusal(response, 415, "unsupported_media_type", "each as “files”")


def test_a_model_that_is_not_loaded_refuses_the_batch(unloaded_client: FlaskClient) -> None:
    check_refusal(post_batch(unloaded_client, *FILMS), 503, "model_not_ready", "Try again")


def test_a_batch_is_counted_by_file(client: FlaskClient) -> None:
    post_batch(client, FILMS[0], b"words", b"", FILMS[1])
    counted = figures(client)
    classes = [name for name in counted if name.startswith("resformer_predictions_total")]
    assert sum(counted[name] for name in classes) == 2
    assert counted['resformer_refusals_total{code="unsupported_format"}'] == 1
    assert counted['resformer_refusals_total{code="empty_file"}'] == 1
    assert counted['resformer_requests_total{endpoint="/predict/batch",status="200"}'] == 1


def test_the_files_of_a_request_go_through_the_network_together_and_one_alone_at_once(
    client_with: Callable[..., FlaskClient],
) -> None:
    client = client_with()
    assert codes(post_batch(client, *[FILMS[0]] * 8)) == [""] * 8
    assert post_file(client, FILMS[0]).status_code == 200
    counted = figures(client)
    assert counted["resformer_batch_size_count"] == 2
    assert counted["resformer_batch_size_sum"] == 9


@pytest.mark.parametrize(
    ("size", "count", "expected"),
    [(64, LARGEST_BATCH + 8, [LARGEST_BATCH, 8]), (700, 6, [3, 3])],
    ids=["number", "pixels"],
)
def test_a_batch_is_bounded_by_number_and_by_pixels(
    model: TestModel, serve: Callable[..., FlaskClient], size: int, count: int, expected: list[int]
) -> None:
    client = serve(max_files=60, concurrency=1, max_bytes=2**24)
    assert codes(post_batch(client, *[encode(size)] * count)) == [""] * count
    assert model.sizes == expected


def test_requests_that_come_together_go_through_the_network_together(
    model: TestModel, serve: Callable[..., FlaskClient], ask: Callable[..., Future[TestResponse]]
) -> None:
    client = serve()
    films = [encode(64 + 8 * (number % 4)) for number in range(24)]
    alone = [post_file(client, film).get_json() for film in films]
    before = figures(client)
    model.seconds = 0.3  # while the network is busy, others are decoded
    answers = [ask(post_file, client, film) for film in films]
    for answer, expected in zip(answers, alone, strict=True):
        check_same(answer.result(PATIENCE).get_json(), expected)
    counted = {name: value - before.get(name, 0) for name, value in figures(client).items()}
    assert counted["resformer_batch_size_sum"] == 24
    assert counted["resformer_batch_size_count"] <= 12
    assert (
        counted['resformer_batch_size_bucket{le="+Inf"}']
        > counted['resformer_batch_size_bucket{le="2.0"}']
    )


def test_only_so_many_pixels_wait_for_the_network(
    model: TestModel, serve: Callable[..., FlaskClient], ask: Callable[..., Future[TestResponse]]
) -> None:
    client, film = serve(concurrency=1), encode(700)
    model.seconds = 0.3
    answers = [ask(post_file, client, film) for _ in range(12)]
    assert {answer.result(PATIENCE).status_code for answer in answers} == {200}
    assert sum(model.sizes) == 12
    assert 2 <= max(model.sizes) <= 4  # two million pixels, of 490,000 each


@pytest.mark.parametrize("post", [post_file, post_batch])
def test_a_film_that_the_model_fails_on_spoils_no_other(
    model: TestModel,
    serve: Callable[..., FlaskClient],
    ask: Callable[..., Future[TestResponse]],
    post: Callable[..., TestResponse],
) -> None:
    client = serve()
    model.fails_on = 200
    if post is post_batch:
        response = post_batch(client, *FILMS)
        assert codes(response) == ["", "internal_error", ""]
        assert "secret" not in response.get_data(as_text=True)
    else:
        model.may_answer.clear()
        first = ask(post_file, client, FILMS[0])
        assert model.has_begun.wait(PATIENCE)
        others = [ask(post_file, client, film) for film in FILMS]
        time.sleep(0.5)  # until they wait
        model.may_answer.set()
        assert first.result(PATIENCE).status_code == 200
        assert [other.result(PATIENCE).status_code for other in others] == [200, 500, 200]


@pytest.mark.parametrize("post", [post_file, post_batch])
def test_a_busy_server_says_so_at_once_and_answers_again_later(
    model: TestModel,
    serve: Callable[..., FlaskClient],
    ask: Callable[..., Future[TestResponse]],
    post: Callable[..., TestResponse],
) -> None:
    client = serve(concurrency=1, queue_size=1)
    model.may_answer.clear()
    first = ask(post_file, client, FILMS[0])
    assert model.has_begun.wait(PATIENCE)
    rivals = [ask(post, client, FILMS[0]) for _ in range(2)]
    refused, waiting = wait(rivals, timeout=PATIENCE, return_when=FIRST_COMPLETED)
    assert len(refused) == len(waiting) == 1
    response = refused.pop().result()
    check_refusal(response, 503, "busy", "Try again")
    assert response.headers["Retry-After"] == "1"
    model.may_answer.set()
    assert first.result(PATIENCE).status_code == 200
    assert waiting.pop().result(PATIENCE).status_code == 200
    assert post(client, FILMS[0]).status_code == 200


def test_one_client_cannot_fill_the_queue(
    model: TestModel,
    serve: Callable[..., FlaskClient],
    ask: Callable[..., Future[TestResponse]],
) -> None:
    """Of eight places, two are for those who hold none; a batch takes one for each file."""
    client = serve(concurrency=1, queue_size=7)
    model.may_answer.clear()
    batch = ask(post_batch, client, *FILMS)
    assert model.has_begun.wait(PATIENCE)
    rivals = {ask(post_file, client, FILMS[0]) for _ in range(8)}
    while sum(rival.done() for rival in rivals) < 5:
        time.sleep(0.01)
    polite = client.application.test_client()
    polite.environ_base["REMOTE_ADDR"] = "192.0.2.7"
    check_refusal(post_batch(polite, *FILMS), 503, "busy")
    answer = ask(lambda *_: post_file(polite, FILMS[0]), client)
    time.sleep(0.2)  # until it waits
    model.may_answer.set()
    assert answer.result(PATIENCE).status_code == batch.result(PATIENCE).status_code == 200
    statuses = [rival.result(PATIENCE).status_code for rival in rivals]
    assert sorted(statuses) == [200] * 3 + [503] * 5


@pytest.mark.parametrize("post", [post_file, post_batch])
def test_who_asks_for_little_does_not_wait_for_all_that_another_asks(
    model: TestModel,
    serve: Callable[..., FlaskClient],
    ask: Callable[..., Future[TestResponse]],
    monkeypatch: pytest.MonkeyPatch,
    post: Callable[..., TestResponse],
) -> None:
    """Decoding and the network take one film of each client in turn."""
    decoded: list[int] = []
    may_decode = threading.Event()

    def decode(data: bytes, **options: Any) -> DecodedImage:
        assert may_decode.wait(PATIENCE)
        image = decode_described(data, **options)
        decoded.append(image.pixels.shape[1])
        return image

    came: list[str | None] = []

    def note(address: str | None) -> str:
        came.append(address)
        return client_of(address)

    def wait_for(count: int) -> None:
        while len(came) < count:
            time.sleep(0.01)
        time.sleep(0.5)  # until they wait

    monkeypatch.setattr("web.predict.client_of", note)
    monkeypatch.setattr("web.predict.decode_described", decode)
    client = serve(concurrency=1, queue_size=31)
    greedy = [ask(post, client, encode(96)) for _ in range(20)]
    wait_for(20)
    polite = client.application.test_client()
    polite.environ_base["REMOTE_ADDR"] = "192.0.2.7"
    answer = ask(lambda *_: post(polite, encode(200)), client)
    wait_for(21)
    model.seconds = 0.1
    may_decode.set()
    assert answer.result(PATIENCE).status_code == 200
    assert {rival.result(PATIENCE).status_code for rival in greedy} == {200}
    assert decoded.index(200) <= 2


def test_what_takes_too_long_is_answered_in_time_and_keeps_its_place(
    model: TestModel, serve: Callable[..., FlaskClient]
) -> None:
    client = serve(concurrency=1, queue_size=0, time_limit=1)
    start = time.monotonic()
    occupy(model, client)  # answered, although the model still thinks
    assert time.monotonic() - start > 0.9
    check_refusal(post_file(client, FILMS[0]), 503, "busy")
    check_refusal(client.post("/predict"), 503, "busy")  # what it holds is not even read
    model.may_answer.set()
    deadline = time.monotonic() + PATIENCE
    while post_file(client, FILMS[0]).status_code == 503:
        assert time.monotonic() < deadline, "the place was never given back"
        time.sleep(0.05)


def test_what_waited_too_long_never_reaches_the_network(
    model: TestModel, serve: Callable[..., FlaskClient]
) -> None:
    client = serve(concurrency=1, queue_size=3, time_limit=1)
    occupy(model, client)
    for _ in range(2):
        check_refusal(post_file(client, FILMS[0]), 503, "timeout")
    assert model.sizes == [1]
    model.may_answer.set()
    deadline = time.monotonic() + PATIENCE
    while post_file(client, FILMS[0]).status_code == 503:
        assert time.monotonic() < deadline
    assert max(model.sizes) == 1


def test_all_files_together_have_the_time_of_one_request(
    model: TestModel, serve: Callable[..., FlaskClient]
) -> None:
    client = serve(time_limit=1)
    occupy(model, client)
    start = time.monotonic()
    assert codes(post_batch(client, *FILMS)) == ["timeout"] * 3
    assert time.monotonic() - start < PATIENCE / 2
