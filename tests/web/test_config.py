"""The settings: one environment variable for each, and impossible values are named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import app as application
from web import WebConfig
from web.config import SettingError, describe_settings


def test_every_setting_has_its_variable() -> None:
    environment = {
        "RESFORMER_MODEL": "/models/mine.pth",
        "RESFORMER_DEVICE": "cpu",
        "RESFORMER_PORT": " 8080\n",
        "RESFORMER_TIME_LIMIT": "2.5",
        "RESFORMER_API_KEY": "secret",
        "RESFORMER_LOG": "json",
        "RESFORMER_RATE_LIMIT": "",
        "RESFORMER_KEEP_FEEDBACK": "1",
        "RESFORMER_UPLOADS": "/films/given",
        "RESFORMER_FEEDBACK_MAX_BYTES": "5000",
    }
    assert WebConfig.from_environment(environment) == WebConfig(
        model_path=Path("/models/mine.pth"),
        device="cpu",
        port=8080,
        time_limit=2.5,
        api_key="secret",
        log="json",
        keep_feedback=True,
        uploads_path=Path("/films/given"),
        feedback_max_bytes=5000,
    )
    assert WebConfig.from_environment({}) == WebConfig()


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        application.main(["--help"])
    printed = capsys.readouterr().out
    assert describe_settings() in printed
    lines = describe_settings().splitlines()
    assert len(lines) == len(dataclasses.fields(WebConfig))
    assert all(line.startswith("  RESFORMER_") for line in lines)
    assert any(line.startswith("  RESFORMER_PORT ") and "(default: 5000)" in line for line in lines)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_pixels": 0}, "max_pixels must be at least 1, got 0"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"queue_size": -1}, "queue_size must be at least 0, got -1"),
        ({"time_limit": 0.5}, "time_limit must be at least 1, got 0.5"),
        ({"receive_limit": float("nan")}, "receive_limit must be at most 86400, got nan"),
        ({"feedback_max_bytes": 0}, "feedback_max_bytes must be at least 1, got 0"),
        ({"port": 65536}, "port must be at most 65535, got 65536"),
        ({"log": "xml"}, "log must be text or json, got 'xml'"),
        ({"api_key": "schlüssel"}, "api_key must be of printable ASCII characters"),
    ],
)
def test_impossible_values_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError) as refused:
        WebConfig(**settings)
    assert str(refused.value) == words


def test_a_variable_that_cannot_be_read_ends_the_start_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RESFORMER_QUEUE_SIZE", "many")
    assert application.main([]) == 1
    message = "resformer: RESFORMER_QUEUE_SIZE must be a whole number, got 'many'\n"
    assert capsys.readouterr().err == message
    monkeypatch.setenv("RESFORMER_QUEUE_SIZE", "2")
    monkeypatch.setenv("RESFORMER_KEEP_FEEDBACK", "yes")
    assert application.main([]) == 1
    message = "resformer: RESFORMER_KEEP_FEEDBACK must be 0 or 1, got 'yes'\n"
    assert capsys.readouterr().err == message


def test_the_key_is_never_shown() -> None:
    config = WebConfig(api_key="top-secret")
    assert "top-secret" not in repr(config)
    assert "top-secret" not in json.dumps(describe_settings())
