"""Behind a proxy every link leads back through it; pages of other sites ask where they may."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.web.posting import check_refusal, encode, post_file
from web.config import StartError, WebConfig

Make = Callable[..., FlaskClient]
PREFIX = {"X-Forwarded-Prefix": "/films"}
OTHER = "https://ward.example"


@pytest.mark.parametrize(
    ("settings", "headers", "base"),
    [
        ({"root_path": "/films"}, {}, ""),  # a proxy that cuts the path off
        ({"root_path": "/films/"}, {}, "/films"),  # one that leaves it on
        ({"proxies": 1}, PREFIX, ""),
        ({"proxies": 2, "root_path": "/elsewhere"}, PREFIX, ""),
    ],
)
def test_every_link_of_every_page_leads_through_the_proxy(
    client_with: Make, settings: dict[str, Any], headers: dict[str, str], base: str
) -> None:
    client = client_with(**settings)
    for page in ("/", "/about", "/docs", "/no"):
        asked = headers | {"Accept": "text/html"}
        text = client.get(f"{base}{page}", headers=asked).get_data(as_text=True)
        links = set(re.findall(r'(?:href|src|action|data-[\w-]+)="(/[^"]*)"', text))
        assert any(link.startswith("/films/static/") for link in links)
        assert [link for link in links if not link.startswith("/films/")] == []
        for link in links:
            address = f"{base}{link.removeprefix('/films')}"
            with client.get(address, headers=headers) as response:
                assert response.status_code in (200, 405), link  # /predict takes POST
    document = client.get(f"{base}/v1/openapi.json", headers=headers).get_json()
    assert document["servers"] == [{"url": "/films"}]


def test_a_film_may_come_with_the_path_or_without_it(client_with: Make) -> None:
    client = client_with(root_path="/films")
    for address in ("/films/predict", "/predict", "/films/v1/predict"):
        assert post_file(client, encode(), address=address).status_code == 200
    assert client.get("/filmstar/healthz").status_code == 404


@pytest.mark.parametrize(
    ("settings", "prefix"),
    [
        ({}, "/films"),  # nobody in front is trusted
        ({"proxies": 1}, "//rebound.example"),
        ({"proxies": 1}, "https://rebound.example"),
        ({"proxies": 1}, "/../.."),
        ({"proxies": 1}, '/"><script>'),
        ({"proxies": 1}, ""),
    ],
)
def test_a_prefix_that_is_none_or_of_a_stranger_changes_nothing(
    client_with: Make, settings: dict[str, Any], prefix: str
) -> None:
    page = client_with(**settings).get("/", headers={"X-Forwarded-Prefix": prefix})
    assert page.get_data() == client_with().get("/").get_data()


def test_the_key_is_asked_for_under_the_path_too(client_with: Make) -> None:
    client = client_with(root_path="/films", api_key="secret")
    for address in ("/films/predict", "/films/v1/predict/batch", "/films/metrics", "/v1/predict"):
        assert client.open(address, method="POST").status_code == 401, address


def preflight(client: FlaskClient, address: str, origin: str) -> Any:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-api-key",
    }
    return client.options(address, headers=headers)


@pytest.mark.parametrize("address", ["/predict", "/v1/predict", "/v1/predict/batch"])
def test_pages_of_listed_sites_may_ask_with_a_key(client_with: Make, address: str) -> None:
    client = client_with(allow_origin=f"https://other.example, {OTHER}", api_key="secret")
    asked = preflight(client, address, OTHER)
    assert (asked.status_code, asked.get_data()) == (204, b"")
    assert asked.headers["Access-Control-Allow-Origin"] == OTHER
    assert "X-API-Key" in asked.headers["Access-Control-Allow-Headers"]
    refused = client.post(address, headers={"Origin": OTHER})
    check_refusal(refused, 401, "unauthorized")
    assert refused.headers["Access-Control-Allow-Origin"] == OTHER  # or it could not be read
    assert "Retry-After" in refused.headers["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Credentials" not in refused.headers
    assert "Origin" in refused.headers["Vary"]


@pytest.mark.parametrize(
    ("allowed", "origin", "address"),
    [
        ("", OTHER, "/v1/predict"),
        (OTHER, "https://ward.example.rebound.example", "/v1/predict"),
        (OTHER, "http://ward.example", "/v1/predict"),
        (OTHER, "null", "/v1/predict"),
        ("*", OTHER, "/feedback"),
        ("*", OTHER, "/metrics"),
        ("*", OTHER, "/"),
    ],
)
def test_pages_of_all_other_sites_may_not(
    client_with: Make, allowed: str, origin: str, address: str
) -> None:
    client = client_with(allow_origin=allowed)
    for response in (
        preflight(client, address, origin),
        client.post(address, headers={"Origin": origin}),
    ):
        assert "Access-Control-Allow-Origin" not in response.headers


def test_any_site_may_ask_where_the_operator_says_so(client_with: Make) -> None:
    client = client_with(allow_origin="*")
    assert preflight(client, "/predict", OTHER).headers["Access-Control-Allow-Origin"] == OTHER
    card = client.get("/v1/model")
    assert card.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("RESFORMER_ROOT_PATH", "films"),
        ("RESFORMER_ROOT_PATH", "//films.example"),
        ("RESFORMER_ROOT_PATH", "/films?x"),
        ("RESFORMER_ALLOW_ORIGIN", "films.example"),
        ("RESFORMER_ALLOW_ORIGIN", "https://films.example/"),
        ("RESFORMER_ALLOW_ORIGIN", "null"),
    ],
)
def test_settings_that_name_no_path_and_no_origin_end_the_start(variable: str, text: str) -> None:
    with pytest.raises(StartError, match=f"{variable.removeprefix('RESFORMER_').lower()} must"):
        WebConfig.from_environment({variable: text})
