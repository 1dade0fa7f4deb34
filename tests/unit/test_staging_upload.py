"""staging: what reaches S3, what is not sent twice, and what happens when S3 refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from staging import ProgressEvent, SourceNotFoundError, StagedDataset, StagingPhase, UploadError, stage
from staging.folder import read_folder
from staging.upload import upload

BUCKET = "scones-dev-123456789012-eu-west-1"


@pytest.fixture
def s3_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        client = boto3.client("s3", region_name="eu-west-1")
        client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        yield client


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for label in ("bicycle", "café racer"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(12):
            (tmp_path / "photos" / label / f"n° {number}.png").write_bytes(f"{label}{number}".encode())
    return tmp_path / "photos"


def send(client: Any, folder: Path, **options: Any) -> StagedDataset:
    return stage(str(folder), s3_client=client, bucket=BUCKET, cache_dir=folder.parent / "cache", **options)


def keys(client: Any) -> dict[str, int]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}


def test_images_and_manifest_lie_under_the_digest(s3_client: Any, photos: Path) -> None:
    staged = send(s3_client, photos)
    prefix = f"raw/{staged.digest}/"
    assert staged.uri == f"s3://{BUCKET}/{prefix}"
    assert (staged.uploaded, staged.skipped) == (25, 0)
    assert staged.counts == {"bicycle": 12, "café racer": 12}
    manifest = json.loads(s3_client.get_object(Bucket=BUCKET, Key=prefix + "manifest.json")["Body"].read())
    assert manifest == staged.manifest
    assert set(keys(s3_client)) == {prefix + entry["path"] for entry in manifest["images"]} | {prefix + "manifest.json"}
    for entry in manifest["images"]:
        answer = s3_client.get_object(Bucket=BUCKET, Key=prefix + entry["path"])
        assert answer["Body"].read() == (photos / entry["source"]).read_bytes()
        assert answer["ContentType"] == "image/png"


def test_staging_twice_uploads_nothing(s3_client: Any, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = send(s3_client, photos)
    monkeypatch.setattr(s3_client, "put_object", None)  # any upload would be a TypeError
    second = send(s3_client, photos)
    assert (second.uploaded, second.skipped) == (0, 25)
    assert (second.uri, second.digest) == (first.uri, first.digest)


def test_existing_keys_are_listed_over_many_pages(s3_client: Any, tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "p" / label).mkdir(parents=True)
        for number in range(520):
            (tmp_path / "p" / label / f"{number}.png").write_bytes(f"{label}{number}".encode())
    send(s3_client, tmp_path / "p")
    events: list[ProgressEvent] = []
    again = send(s3_client, tmp_path / "p", progress=events.append)
    assert (again.uploaded, again.skipped) == (0, 1041)
    assert [event.done for event in events if event.phase is StagingPhase.COMPARE] == [1000, 1041]


def test_an_interrupted_upload_goes_on_and_has_no_manifest_before_the_end(
    s3_client: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = s3_client.put_object
    sent: list[str] = []

    def failing(**arguments: Any) -> Any:
        if len(sent) >= 7:
            raise ConnectionResetError("the cable was pulled")
        sent.append(arguments["Key"])
        return real(**arguments)

    with monkeypatch.context() as patch:
        patch.setattr(s3_client, "put_object", failing)
        with pytest.raises(ConnectionResetError):
            send(s3_client, photos)
    before = keys(s3_client)
    assert len(before) == 7
    assert not any(key.endswith("manifest.json") for key in before)
    resumed = send(s3_client, photos)
    assert (resumed.uploaded, resumed.skipped) == (25 - 7, 7)
    assert len(keys(s3_client)) == 25


def test_the_manifest_is_the_last_object(s3_client: Any, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = s3_client.put_object
    order: list[str] = []

    def recording(**arguments: Any) -> Any:
        answer = real(**arguments)
        order.append(arguments["Key"])
        return answer

    monkeypatch.setattr(s3_client, "put_object", recording)
    send(s3_client, photos)
    assert [key.endswith("manifest.json") for key in order] == [False] * 24 + [True]


def test_an_object_of_the_wrong_size_or_deleted_is_sent_again(s3_client: Any, photos: Path) -> None:
    staged = send(s3_client, photos)
    first, second = staged.manifest["images"][0], staged.manifest["images"][1]
    s3_client.put_object(Bucket=BUCKET, Key=f"raw/{staged.digest}/{first['path']}", Body=b"half")
    s3_client.delete_object(Bucket=BUCKET, Key=f"raw/{staged.digest}/{second['path']}")
    again = send(s3_client, photos)
    assert (again.uploaded, again.skipped) == (3, 22)  # both, and the manifest after them
    assert keys(s3_client)[f"raw/{staged.digest}/{first['path']}"] == first["size"]


def test_equal_files_of_a_class_are_one_object_and_two_entries(s3_client: Any, photos: Path) -> None:
    (photos / "bicycle" / "copy.png").write_bytes((photos / "bicycle" / "n° 3.png").read_bytes())
    staged = send(s3_client, photos)
    assert staged.uploaded == 25
    assert len(staged.manifest["images"]) == 25


def test_the_same_image_in_two_classes_is_a_warning(s3_client: Any, photos: Path) -> None:
    (photos / "bicycle" / "copy.png").write_bytes((photos / "café racer" / "n° 3.png").read_bytes())
    (warning,) = send(s3_client, photos).warnings
    assert "bicycle/copy.png" in warning
    assert "café racer/n° 3.png" in warning


def test_progress_counts_up_to_all_images(s3_client: Any, photos: Path) -> None:
    events: list[ProgressEvent] = []
    send(s3_client, photos, progress=events.append)
    uploads = [event for event in events if event.phase is StagingPhase.UPLOAD]
    assert uploads[-1] == ProgressEvent(StagingPhase.UPLOAD, 24, 24)
    assert [event.done for event in uploads] == sorted(event.done for event in uploads)


def test_a_missing_bucket_says_what_to_do(s3_client: Any, photos: Path) -> None:
    with pytest.raises(UploadError) as error:
        stage(str(photos), s3_client=s3_client, bucket="nobodys", cache_dir=photos.parent)
    assert error.value.message == "The bucket nobodys does not exist."
    assert "platform stack" in error.value.hint


def test_no_permission_says_which_is_missing(s3_client: Any, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError

    def denied(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "PutObject")

    monkeypatch.setattr(s3_client, "put_object", denied)
    with pytest.raises(UploadError, match="No permission") as error:
        send(s3_client, photos)
    assert "s3:PutObject" in error.value.hint


def test_an_endpoint_that_is_down_says_so(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    from botocore.config import Config

    client = boto3.client(
        "s3", region_name="eu-west-1", endpoint_url="http://127.0.0.1:9", config=Config(retries={"total_max_attempts": 1})
    )
    with pytest.raises(UploadError, match="cannot be reached"):
        send(client, photos)


def test_a_file_that_changed_after_it_was_read_is_not_uploaded(s3_client: Any, photos: Path) -> None:
    dataset = read_folder(photos, source="photos")
    (photos / "bicycle" / "n° 3.png").write_bytes(b"something else")
    with pytest.raises(SourceNotFoundError, match="changed while it was staged"):
        upload(dataset, s3_client=s3_client, bucket=BUCKET)
    assert not any(key.endswith("manifest.json") for key in keys(s3_client))
    dataset = read_folder(photos, source="photos")
    (photos / "bicycle" / "n° 3.png").unlink()
    with pytest.raises(SourceNotFoundError, match="cannot be read any more"):
        upload(dataset, s3_client=s3_client, bucket=BUCKET)


def test_refused_data_uploads_nothing(s3_client: Any, photos: Path) -> None:
    for number in range(5):
        (photos / "bicycle" / f"n° {number}.png").unlink()
    with pytest.raises(Exception, match="nothing was uploaded"):
        send(s3_client, photos)
    assert keys(s3_client) == {}
