"""Manifests of S3 inputs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud.object_store import ObjectNotFound
from localcloud.sagemaker.inputs import read_manifest


def test_a_manifest_names_a_prefix_and_keys() -> None:
    assert read_manifest("s3://b/m", b'[{"prefix": "s3://b/x/"}, "a.png", "b/c.png"]') == ("s3://b/x/", ["a.png", "b/c.png"])


@pytest.mark.parametrize(
    "content", [[], {}, ["a"], [{"prefix": "no-uri"}], [{"prefix": "s3://b/"}, 1], [{"other": "s3://b/"}], "text", None]
)
def test_other_json_is_refused(content: Any) -> None:
    with pytest.raises(ObjectNotFound, match="is not a manifest"):
        read_manifest("s3://b/m", json.dumps(content).encode())


@given(st.binary(max_size=100))
def test_any_other_bytes_are_refused_with_the_same_error(body: bytes) -> None:
    with pytest.raises(ObjectNotFound):
        read_manifest("s3://b/m", body)
