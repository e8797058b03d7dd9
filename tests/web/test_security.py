"""The API key, the rate limit and the security headers."""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.web.posting import encode
from tests.web.posting import post_file
from web import WebConfig, create_app
from web.service import StartError

KEY = "correct-horse-battery"


def client_with(model_path: Path, **settings: Any) -> FlaskClient:
    return create_app(WebConfig(model_path, "cpu", **settings)).test_client()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": KEY},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {KEY}"},
        {"X-API-Key": KEY.upper()},
        {"X-API-Key": "schlüssel"},
        {"X-API-Key": ""},
    ],
)
@pytest.mark.parametrize(("method", "address"), [("POST", "/predict"), ("GET", "/metrics")])
def test_without_the_key_nothing_is_answered(
    tiny_checkpoint: Path, headers: dict[str, str], method: str, address: str
) -> None:
    response = client_with(tiny_checkpoint, api_key=KEY).open(
        address, method=method, headers=headers
    )
    assert (response.status_code, response.get_json()["code"]) == (401, "unauthorized")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="resformer"'
    assert "asks for a key" in response.get_json()["error"]
    assert KEY not in response.get_data(as_text=True)


@pytest.mark.parametrize("address", ["/predict", "/predict/", "/predict/batch", "/predict/no"])
def test_every_way_to_ask_for_a_prediction_is_kept(tiny_checkpoint: Path, address: str) -> None:
    response = client_with(tiny_checkpoint, api_key=KEY).post(address)
    assert response.status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer  {KEY}"},
        {"X-API-Key": KEY},
        {"X-API-Key": KEY, "Authorization": "Basic of-a-proxy"},
    ],
)
def test_the_key_opens(tiny_checkpoint: Path, headers: dict[str, str]) -> None:
    client = client_with(tiny_checkpoint, api_key=KEY)
    assert client.get("/metrics", headers=headers).status_code == 200
    client.environ_base.update(
        {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
    )
    assert post_file(client, encode()).status_code == 200


@pytest.mark.parametrize("address", ["/", "/healthz", "/readyz", "/static/icon.svg"])
def test_the_page_and_the_probes_need_no_key(tiny_checkpoint: Path, address: str) -> None:
    with client_with(tiny_checkpoint, api_key=KEY).get(address) as response:
        assert response.status_code == 200


def test_keys_are_compared_in_constant_time(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def compare(given: bytes, wanted: bytes) -> bool:
        compared.append((given, wanted))
        return False

    monkeypatch.setattr(hmac, "compare_digest", compare)
    client = client_with(tiny_checkpoint, api_key=KEY)
    client.get("/metrics", headers={"X-API-Key": KEY, "Authorization": f"Bearer {KEY}"})
    assert compared == [(KEY.encode(), KEY.encode())] * 2


def test_beyond_the_rate_limit_clients_wait(tiny_checkpoint: Path) -> None:
    client = client_with(tiny_checkpoint, rate_limit="2/minute")
    assert [post_file(client, encode()).status_code for _ in range(2)] == [200, 200]
    response = post_file(client, encode())
    assert (response.status_code, response.get_json()["code"]) == (429, "rate_limited")
    seconds = int(response.headers["Retry-After"])
    assert 1 <= seconds <= 61  # whole seconds, rounded up
    assert f"Try again in {seconds} s" in response.get_json()["error"]
    for address in ("/", "/healthz", "/metrics"):
        assert client.get(address).status_code == 200
    client.environ_base["REMOTE_ADDR"] = "192.0.2.7"
    assert post_file(client, encode()).status_code == 200


def test_guessing_keys_is_limited_too(tiny_checkpoint: Path) -> None:
    client = client_with(tiny_checkpoint, rate_limit="2/minute", api_key=KEY)
    statuses = [client.post("/predict").status_code for _ in range(4)]
    assert statuses == [401, 401, 429, 429]


def test_clients_behind_own_proxies_are_told_apart(tiny_checkpoint: Path) -> None:
    def ask(client: FlaskClient, address: str) -> int:
        return client.post("/predict", headers={"X-Forwarded-For": address}).status_code

    behind = client_with(tiny_checkpoint, rate_limit="1/minute", proxies=1)
    assert [ask(behind, f"192.0.2.{number}") for number in range(3)] == [400] * 3
    # Anyone can send the header: it is believed only where the operator names a proxy.
    alone = client_with(tiny_checkpoint, rate_limit="1/minute")
    assert [ask(alone, f"192.0.2.{number}") for number in range(3)] == [400, 429, 429]


def test_nothing_is_limited_by_default(tiny_checkpoint: Path) -> None:
    client = client_with(tiny_checkpoint)
    assert {client.post("/predict").status_code for _ in range(200)} == {400}


def test_a_rate_limit_that_cannot_be_read_ends_the_start(tiny_checkpoint: Path) -> None:
    with pytest.raises(StartError, match="cannot read the rate limit 'often': write it like"):
        client_with(tiny_checkpoint, rate_limit="often")
