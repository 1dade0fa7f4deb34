"""What a job, a function or a model server sees of the shell that started localcloud."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from localcloud.cloud import Cloud
from localcloud.isolation import isolate
from localcloud.settings import CloudSettings


def test_children_get_this_region_and_none_of_the_shells_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_TOKEN", "AWS_PROFILE", "AWS_SECRET_ACCESS_KEY", "DATABASE_URL", "PYTHONPATH", "MY_PIP_TOKEN"):
        monkeypatch.setenv(name, "a secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    cloud = Cloud(CloudSettings(tmp_path, port=4566))
    try:
        environment = cloud.client_environment("arn:aws:iam::123456789012:role/job", "SageMaker")
    finally:
        cloud.processes.stop()
        cloud.db.close()
    assert "a secret" not in environment.values()
    assert environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4566"
    assert (environment["OMP_NUM_THREADS"], environment["HTTPS_PROXY"]) == ("1", "http://proxy")
    assert environment["AWS_CONFIG_FILE"] == environment["AWS_SHARED_CREDENTIALS_FILE"] == os.devnull
    assert "127.0.0.1" in environment["no_proxy"].split(",")


@pytest.mark.parametrize(
    ("given", "direct"),
    [
        ({}, "127.0.0.1,localhost"),
        ({"NO_PROXY": "a.b,localhost"}, "a.b,localhost,127.0.0.1"),
        ({"no_proxy": "c.d,", "NO_PROXY": "a.b"}, "c.d,127.0.0.1,localhost"),
    ],
)
def test_no_setting_of_a_shell_leads_clients_away_from_this_machine(given: dict[str, str], direct: str) -> None:
    environ = {
        **given,
        "AWS_PROFILE": "work",
        "AWS_ENDPOINT_URL_S3": "http://elsewhere",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
        "A": "1",
    }
    isolate(environ)
    assert environ == {
        "A": "1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "no_proxy": direct,
        "NO_PROXY": direct,
    }
