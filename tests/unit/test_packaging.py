"""Lambda zips and the other uploads: the same sources make the same bytes, small, and enough to run alone."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from helpers_aws import AwsError, fake_client
from infrastructure import packaging
from infrastructure.packaging import Assets, Function, PackagingError, build_assets, build_zip, read_assets, upload_assets, write_assets

# A zip above this makes cold starts slower than they need be; it is three times what the zips have.
MAX_ZIP_BYTES = 500_000


@pytest.fixture(scope="module")
def assets() -> Assets:
    return build_assets()


def test_keys_hold_the_digest_of_the_bytes(assets: Assets) -> None:
    for function, asset in assets.functions.items():
        assert asset.key == f"code/lambdas/{function}/{hashlib.sha256(asset.data).hexdigest()}.zip"
    assert assets.workflow_definition.key == f"code/stepfunctions/classify/{assets.workflow_definition.sha256}.asl.json"
    assert assets.inference_template.key == f"code/templates/inference/{assets.inference_template.sha256}.yaml"


def test_a_package_is_read_as_it_was_written(assets: Assets, tmp_path: Path) -> None:
    write_assets(assets, tmp_path)
    assert read_assets(tmp_path) == assets


@pytest.mark.parametrize("name", ["code/lambdas/smoke_test/*.zip", "code/stepfunctions/classify/*.json", "code/templates/inference/*.yaml"])
def test_a_package_that_is_not_whole_is_refused_and_says_what_to_do(assets: Assets, tmp_path: Path, name: str) -> None:
    write_assets(assets, tmp_path)
    (file,) = tmp_path.glob(name)
    content = file.read_bytes()
    file.write_bytes(content + b" ")
    with pytest.raises(PackagingError, match=f"{file.name} is not what its name says.*scones aws package"):
        read_assets(tmp_path)
    file.with_name(f"other{file.name}").write_bytes(content)
    with pytest.raises(PackagingError, match=r"2 files code/.*, where one belongs.*scones aws package"):
        read_assets(tmp_path)
    for path in file.parent.iterdir():
        path.unlink()
    with pytest.raises(PackagingError, match=r"no file code/.*, where one belongs.*scones aws package"):
        read_assets(tmp_path)


def test_building_twice_makes_the_same_bytes(assets: Assets) -> None:
    assert [asset.data for asset in build_assets()] == [asset.data for asset in assets]


def test_a_zip_depends_on_paths_and_contents_alone(tmp_path: Path) -> None:
    one, other = {"a.py": b"1", "b/c.py": b"2" * 1000}, {"b/c.py": b"2" * 1000, "a.py": b"1"}
    assert build_zip(one) == build_zip(other)
    assert build_zip(one) != build_zip(one | {"a.py": b"2"})
    (info, _) = zipfile.ZipFile(io.BytesIO(build_zip(one))).infolist()
    assert (info.date_time, info.external_attr >> 16) == ((1980, 1, 1, 0, 0, 0), 0o100644)


def test_a_change_in_one_function_changes_one_key(assets: Assets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("lambdas", "stepfunctions", "infrastructure"):
        for path in (packaging.ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".json", ".yaml"):
                copy = tmp_path / path.relative_to(packaging.ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(packaging, "ROOT", tmp_path)
    assert [asset.key for asset in build_assets()] == [asset.key for asset in assets]
    handler = tmp_path / "lambdas" / Function.IMAGE_CLASSIFICATION / "handler.py"
    handler.write_text(handler.read_text() + "\n# changed\n")
    changed = [function for function, asset in build_assets().functions.items() if asset.key != assets.functions[function].key]
    assert changed == [Function.IMAGE_CLASSIFICATION]


@pytest.mark.parametrize("function", Function)
def test_a_zip_is_small_and_holds_no_other_function_no_tests_and_no_compiled_code(assets: Assets, function: Function) -> None:
    data = assets.functions[function].data
    assert len(data) < MAX_ZIP_BYTES
    names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    assert all(name.endswith(".py") for name in names)
    assert {name.split("/")[1] for name in names if name.startswith("lambdas/") and name.count("/") > 1} == {function, "common"}


@pytest.mark.parametrize("function", Function)
def test_a_zip_runs_with_nothing_but_boto3_beside_it(assets: Assets, function: Function, tmp_path: Path) -> None:
    zipfile.ZipFile(io.BytesIO(assets.functions[function].data)).extractall(tmp_path)
    program = f"""
import json, sys
sys.path.insert(0, sys.argv[1])
from lambdas.{function} import handler
import aws_lambda_powertools, jmespath, typing_extensions
class Context:
    function_name = aws_request_id = "x"
    memory_limit_in_mb = 1
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:x"
try:
    handler.lambda_handler({{}}, Context)
    name = None
except Exception as error:
    name = type(error).__name__
modules = [handler, aws_lambda_powertools, jmespath, typing_extensions]
print(json.dumps({{"error": name, "files": [module.__file__ for module in modules]}}))
"""
    run = subprocess.run([sys.executable, "-I", "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    log, answer = map(json.loads, run.stdout.splitlines())
    assert (log["level"], log["error_name"]) == ("ERROR", answer["error"])
    assert answer["error"] in ("InvalidInputError", "InvalidEventError", "InvalidRequestError")
    assert all(file.startswith(str(tmp_path)) for file in answer["files"])


def test_the_filter_does_not_pay_for_boto3(assets: Assets, tmp_path: Path) -> None:
    zipfile.ZipFile(io.BytesIO(assets.functions[Function.FILTER_LOW_CONFIDENCE_INFERENCES].data)).extractall(tmp_path)
    program = "import sys; sys.path.insert(0, sys.argv[1])\nimport lambdas.filter_low_confidence_inferences.handler\nprint('boto3' in sys.modules)"
    run = subprocess.run([sys.executable, "-I", "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_uploading_twice_uploads_nothing_the_second_time(assets: Assets) -> None:
    bucket: dict[str, bytes] = {}

    def head(params: dict[str, Any]) -> dict[str, Any]:
        if params["Key"] not in bucket:
            raise AwsError("404", "Not Found", 404)
        return {}

    def put(params: dict[str, Any]) -> dict[str, Any]:
        bucket[params["Key"]] = params["Body"]
        return {}

    client = fake_client("s3", HeadObject=head, PutObject=put)
    assert sorted(upload_assets(client, "bucket", assets)) == sorted(bucket) == sorted(asset.key for asset in assets)
    assert upload_assets(client, "bucket", assets) == []


def test_a_bucket_that_refuses_is_not_taken_for_an_empty_one(assets: Assets) -> None:
    def refuse(params: dict[str, Any]) -> dict[str, Any]:
        raise AwsError("403", "Forbidden", 403)

    client = fake_client("s3", HeadObject=refuse)
    with pytest.raises(client.exceptions.ClientError, match="Forbidden"):
        upload_assets(client, "bucket", assets)


def test_without_powertools_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaging, "VENDORED", ("no-such-distribution",))
    with pytest.raises(PackagingError, match="pip install no-such-distribution"):
        build_assets()
