"""The API key, the rate limit and the security headers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.web.posting import check_refusal, encode, post_file
from web.config import StartError

KEY = "correct-horse-battery"


Make = Callable[..., FlaskClient]


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
    client_with: Make, headers: dict[str, str], method: str, address: str
) -> None:
    response = client_with(api_key=KEY).open(address, method=method, headers=headers)
    assert (response.status_code, response.get_json()["code"]) == (401, "unauthorized")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="resformer"'
    assert "asks for a key" in response.get_json()["error"]
    assert KEY not in response.get_data(as_text=True)


def test_every_way_to_ask_for_a_prediction_is_kept_and_the_page_and_the_probes_are_not(
    client_with: Make,
) -> None:
    client = client_with(api_key=KEY)
    for address in ("/predict", "/predict/", "/predict/batch", "/predict/no"):
        assert client.post(address).status_code == 401, address
    for address in ("/", "/healthz", "/readyz", "/static/icon.svg"):
        with client.get(address) as response:
            assert response.status_code == 200, address


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer  {KEY}"},
        {"X-API-Key": KEY},
        {"X-API-Key": KEY, "Authorization": "Basic of-a-proxy"},
    ],
)
def test_the_key_opens(client_with: Make, headers: dict[str, str]) -> None:
    client = client_with(api_key=KEY)
    assert client.get("/metrics", headers=headers).status_code == 200
    client.environ_base.update(
        {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
    )
    assert post_file(client, encode()).status_code == 200


def test_beyond_the_rate_limit_clients_wait(client_with: Make) -> None:
    client = client_with(rate_limit="2/minute")
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


def test_guessing_keys_is_limited_too(client_with: Make) -> None:
    client = client_with(rate_limit="2/minute", api_key=KEY)
    statuses = [client.post("/predict").status_code for _ in range(4)]
    assert statuses == [401, 401, 429, 429]


def test_clients_behind_own_proxies_are_told_apart(client_with: Make) -> None:
    def ask(client: FlaskClient, address: str) -> int:
        return client.post("/predict", headers={"X-Forwarded-For": address}).status_code

    behind = client_with(rate_limit="1/minute", proxies=1)
    assert [ask(behind, f"192.0.2.{number}") for number in range(3)] == [400] * 3
    # One client, whatever its port, and whichever address of its own network it takes.
    assert [ask(behind, f"198.51.100.1:{port}") for port in (80, 81)] == [400, 429]
    assert [ask(behind, f"[2001:db8::{n}]:8{n}") for n in (1, 2)] == [400, 429]
    assert ask(behind, "2001:db8:0:1::1") == 400
    # What is no address is nobody else than the proxy.
    junk = ["unknown", "192.0.2.300", "<script>", "a:1"]
    assert [ask(behind, text) for text in junk] == [400, 429, 429, 429]
    # Anyone can send the header: it is believed only where the operator names a proxy.
    alone = client_with(rate_limit="1/minute")
    assert [ask(alone, f"192.0.2.{number}") for number in range(3)] == [400, 429, 429]


@pytest.mark.parametrize(
    ("settings", "host", "status"),
    [
        ({}, "localhost", 200),
        ({}, "LOCALHOST:5000", 200),
        ({}, "127.0.0.1:81", 200),
        ({}, "[::1]:5000", 200),
        ({}, "rebound.example", 421),
        ({}, "localhost.rebound.example:5000", 421),
        ({}, "localhost@rebound.example", 421),
        ({}, "192.0.2.7", 421),
        ({}, "", 421),
        ({"host": "127.8.8.8"}, "127.8.8.8", 200),
        ({"host": "[::1]"}, "rebound.example", 421),
        ({"host": "localhost", "proxies": 1}, "rebound.example", 421),
        ({"hosts": "Films.example, 192.0.2.7"}, "films.example:443", 200),
        ({"hosts": "films.example"}, "localhost", 200),
        ({"hosts": "*"}, "rebound.example", 200),
        ({"host": "0.0.0.0"}, "rebound.example", 200),
        ({"host": "0.0.0.0", "hosts": "films.example"}, "rebound.example", 421),
        ({"host": "0.0.0.0", "hosts": "films.example"}, "films.example", 200),
    ],
)
def test_a_server_goes_by_its_own_names_alone(
    client_with: Make, settings: dict[str, Any], host: str, status: int
) -> None:
    for address in ("/healthz", "/", "/static/icon.svg"):
        with client_with(**settings).get(address, headers={"Host": host}) as response:
            assert response.status_code == status
    if status == 421:
        refused = client_with(api_key=KEY, **settings).post("/predict", headers={"Host": host})
        check_refusal(refused, 421, "unknown_host", "RESFORMER_HOSTS")


def test_nothing_is_limited_by_default_and_a_limit_is_read_at_the_start(
    client_with: Make,
) -> None:
    client = client_with()
    assert {client.post("/predict").status_code for _ in range(200)} == {400}
    with pytest.raises(StartError, match="cannot read the rate limit 'often': write it like"):
        client_with(rate_limit="often")


@pytest.mark.parametrize(
    "address", ["/", "/no", "/predict", "/healthz", "/metrics", "/static/js/main.js"]
)
def test_every_answer_carries_the_security_headers(client: FlaskClient, address: str) -> None:
    with client.get(address) as response:
        headers = response.headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"
    assert "Set-Cookie" not in headers
    assert (headers["Cache-Control"] == "no-store") is not address.startswith("/static")
