"""CodeBuild as its users see it: projects, builds that really run, their logs, artifacts and events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from helpers_codebuild import BUCKET, Lab, phases, unzipped

ALL = [
    "SUBMITTED",
    "QUEUED",
    "PROVISIONING",
    "DOWNLOAD_SOURCE",
    "INSTALL",
    "PRE_BUILD",
    "BUILD",
    "POST_BUILD",
    "UPLOAD_ARTIFACTS",
    "FINALIZING",
    "COMPLETED",
]


@pytest.fixture(scope="module")
def lab(region: Any) -> Lab:
    return Lab(region)


def error_of(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call()
    return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]


# Builds.


def test_a_source_is_built_and_its_artifact_uploaded(lab: Lab) -> None:
    spec = (
        "version: 0.2\n"
        "phases:\n"
        "  install:\n    runtime-versions:\n      python: 3.11\n"
        "  pre_build:\n    commands:\n      - cd sub\n      - GREETING=hello\n"
        "  build:\n    commands:\n      - mkdir out\n      - echo $GREETING >out/greeting.txt\n      - python -c 'print(6 * 7)'\n"
        "artifacts:\n  files: '**/*'\n  base-directory: sub/out\n"
    )
    source = lab.source({"buildspec.yml": spec, "sub/x": "x"})
    name = lab.project(source=source, artifacts={"type": "S3", "location": BUCKET, "path": "out", "name": "a.zip", "packaging": "ZIP"})
    build = lab.build(name)
    assert build["buildStatus"] == "SUCCEEDED", lab.lines(build)
    assert build["buildComplete"]
    assert build["buildNumber"] == 1
    assert build["currentPhase"] == "COMPLETED"
    assert list(phases(build)) == ALL
    assert set(list(phases(build).values())[:-1]) == {"SUCCEEDED"}
    assert unzipped(lab.body("out/a.zip")) == {"greeting.txt": b"hello\n"}
    assert build["artifacts"]["location"] == f"arn:aws:s3:::{BUCKET}/out/a.zip"
    assert lab.printed(build) == ["42"]
    log = "\n".join(line.partition(" ")[2].split(" ", 2)[-1] for line in lab.lines(build))
    for line in (
        "Phases found in YAML: 3",
        "Entering phase BUILD",
        "Running command mkdir out",
        "Phase complete: BUILD State: SUCCEEDED",
        "Selecting 'python' runtime version '3.11' based on manual selections...",
    ):
        assert line in log
    assert lab.build(name)["buildNumber"] == 2
