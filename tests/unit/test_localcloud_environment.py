"""What a job, a function or a model server sees of the shell that started localcloud."""

from __future__ import annotations

from pathlib import Path

import pytest

from localcloud.cloud import Cloud
from localcloud.settings import CloudSettings


def test_children_get_this_region_and_none_of_the_shells_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_TOKEN", "AWS_PROFILE", "AWS_SECRET_ACCESS_KEY", "DATABASE_URL", "PYTHONPATH", "MY_PIP_TOKEN"):
        monkeypatch.setenv(name, "a secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    cloud = Cloud(CloudSettings(tmp_path, port=4566))
    try:
        environment = cloud.client_environment("arn:aws:iam::123456789012:role/job")
    finally:
        cloud.processes.stop()
        cloud.db.close()
    assert "a secret" not in environment.values()
    assert environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4566"
    assert (environment["OMP_NUM_THREADS"], environment["HTTPS_PROXY"]) == ("1", "http://proxy")
