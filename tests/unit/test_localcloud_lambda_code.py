"""Zips of functions, names of functions, and who may invoke them."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from localcloud.awslambda.code import CodeStore
from localcloud.awslambda.function_logs import InvocationLog, Report
from localcloud.awslambda.functions import FunctionStore, FunctionVersion
from localcloud.database import Database
from localcloud.errors import ServiceError
from localcloud.iam.trust import ServiceCall, allows
from localcloud.settings import CloudSettings


class FakeCloud:
    """As much of a region as the stores need."""

    def __init__(self, state_dir: Path) -> None:
        self.settings = CloudSettings(state_dir)
        self.db = Database(state_dir / "localcloud.db")
        self.objects = SimpleNamespace()

    def arn(self, service: str, resource: str) -> str:
        return f"arn:aws:{service}:{self.settings.region}:{self.settings.account_id}:{resource}"


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Any]:
    fake = FakeCloud(tmp_path)
    yield fake
    fake.db.close()


@pytest.fixture
def store(cloud: Any) -> CodeStore:
    return CodeStore(cloud)


def zip_of(files: dict[str, str], modes: dict[str, int] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (modes or {}).get(name, stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def test_a_zip_is_kept_by_its_content(store: CodeStore) -> None:
    first = store.store({"ZipFile": zip_of({"app.py": "x = 1", "lib/a.py": ""})}, "CreateFunction")
    again = store.store({"ZipFile": zip_of({"app.py": "x = 1", "lib/a.py": ""})}, "CreateFunction")
    other = store.store({"ZipFile": zip_of({"app.py": "x = 2"})}, "CreateFunction")
    assert first == again != other
    assert (store.root(first.digest) / "lib" / "a.py").is_file()
    assert (store.root(other.digest) / "app.py").read_text() == "x = 2"


def test_links_inside_a_zip_stay_inside_it(store: CodeStore) -> None:
    link = stat.S_IFLNK | 0o777
    kept = store.store({"ZipFile": zip_of({"real.py": "x = 1", "link.py": "real.py"}, {"link.py": link})}, "CreateFunction")
    assert (store.root(kept.digest) / "link.py").read_text() == "x = 1"
    with pytest.raises(ServiceError, match="Could not unzip"):
        store.store({"ZipFile": zip_of({"link.py": "../../../secret"}, {"link.py": link})}, "CreateFunction")


def test_names_that_leave_the_folder_do_not(store: CodeStore, tmp_path: Path) -> None:
    kept = store.store({"ZipFile": zip_of({"../outside.py": "x"})}, "CreateFunction")
    assert not list(tmp_path.rglob("code/outside.py"))
    assert (store.root(kept.digest) / "outside.py").is_file()


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        ({}, "InvalidParameterValueException", "Please provide a source for function code."),
        (
            {"ZipFile": b"no zip"},
            "InvalidParameterValueException",
            "Could not unzip uploaded file. Please check your file, then try to upload again.",
        ),
        ({"ZipFile": zip_of({})}, "InvalidParameterValueException", "Uploaded file must be a non-empty zip"),
        ({"ImageUri": "x"}, "InvalidParameterValueException", "not supported by localcloud"),
    ],
)
def test_what_is_no_code_is_refused(store: CodeStore, source: dict[str, Any], code: str, message: str) -> None:
    with pytest.raises(ServiceError) as caught:
        store.store(source, "CreateFunction")
    assert caught.value.code == code
    assert message in caught.value.message


def test_a_refused_zip_leaves_nothing_behind(store: CodeStore, tmp_path: Path) -> None:
    with pytest.raises(ServiceError):
        store.store({"ZipFile": b"PK no zip"}, "CreateFunction")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "localcloud.db" not in path.name]


def test_only_code_that_is_referred_to_is_kept(store: CodeStore) -> None:
    kept, dropped = (store.store({"ZipFile": zip_of({"app.py": text})}, "CreateFunction") for text in ("a", "b"))
    store.keep_only({kept.digest})
    assert store.root(kept.digest).is_dir()
    assert store.zip_path(kept.digest).is_file()
    assert not store.root(dropped.digest).exists()
    assert not store.zip_path(dropped.digest).exists()


def test_the_runtime_has_what_awss_has_and_nothing_else(store: CodeStore) -> None:
    store.prepare_runtime()
    assert {path.name for path in store.runtime_dir.iterdir()} == {
        "boto3",
        "botocore",
        "s3transfer",
        "jmespath",
        "dateutil",
        "six.py",
        "urllib3",
    }
    assert all(path.exists() for path in store.runtime_dir.iterdir())


def test_packages_that_a_zip_brings_itself_are_seen(store: CodeStore) -> None:
    kept = store.store({"ZipFile": zip_of({"boto3/__init__.py": "", "six.py": "", "app.py": ""})}, "CreateFunction")
    assert store.bundled([store.root(kept.digest)]) == ["boto3", "six"]


# Names


@pytest.mark.parametrize(
    ("identifier", "qualifier", "expected"),
    [
        ("f", None, ("f", None)),
        ("f", "1", ("f", "1")),
        ("f:live", None, ("f", "live")),
        ("f:live", "live", ("f", "live")),
        ("123456789012:f", None, ("f", None)),
        ("123456789012:function:f:2", None, ("f", "2")),
        ("arn:aws:lambda:us-east-1:123456789012:function:f", None, ("f", None)),
        ("arn:aws:lambda:us-east-1:123456789012:function:f:$LATEST", None, ("f", "$LATEST")),
    ],
)
def test_what_a_functions_name_means(cloud: Any, identifier: str, qualifier: str | None, expected: tuple[str, str | None]) -> None:
    assert FunctionStore(cloud).identify(identifier, qualifier) == expected


@pytest.mark.parametrize(
    ("identifier", "qualifier", "code"),
    [
        ("a b", None, "ValidationException"),
        ("arn:aws:lambda:eu-west-1:123456789012:function:f", None, "ResourceNotFoundException"),
        ("arn:aws:lambda:us-east-1:999999999999:function:f", None, "ResourceNotFoundException"),
        ("f:1", "2", "InvalidParameterValueException"),
    ],
)
def test_names_that_mean_nothing_here(cloud: Any, identifier: str, qualifier: str | None, code: str) -> None:
    with pytest.raises(ServiceError) as caught:
        FunctionStore(cloud).identify(identifier, qualifier)
    assert caught.value.code == code


# Policies

RULE = "arn:aws:events:us-east-1:123456789012:rule/approved"
RESOURCE = "arn:aws:lambda:us-east-1:123456789012:function:f"
CALL = ServiceCall("events.amazonaws.com", "lambda:InvokeFunction", RESOURCE, RULE, "123456789012")


def statement(**members: Any) -> dict[str, Any]:
    allowed = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "lambda:InvokeFunction", "Resource": RESOURCE}
    return {"Statement": [allowed | members]}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (None, False),
        ({"Statement": []}, False),
        (statement(), True),
        (statement(Principal="*"), True),
        (statement(Principal={"AWS": "*"}), True),
        (statement(Principal={"Service": ["s3.amazonaws.com", "events.amazonaws.com"]}), True),
        (statement(Principal={"Service": "s3.amazonaws.com"}), False),
        (statement(Action="lambda:*"), True),
        (statement(Action=["lambda:GetFunction"]), False),
        (statement(Resource="arn:aws:lambda:*:*:function:f"), True),
        (statement(Resource=RESOURCE + ":1"), False),
        (statement(Condition={"ArnLike": {"AWS:SourceArn": "arn:aws:events:us-east-1:123456789012:rule/app*"}}), True),
        (statement(Condition={"ArnEquals": {"aws:SourceArn": RULE + "x"}}), False),
        (statement(Condition={"StringEquals": {"aws:SourceAccount": "123456789012"}}), True),
        (statement(Condition={"StringEquals": {"aws:SourceAccount": "1"}}), False),
        (statement(Condition={"StringNotEquals": {"aws:SourceAccount": "1"}}), True),
        (statement(Condition={"StringEquals": {"aws:PrincipalOrgID": "o"}}), False),
        ({"Statement": [*statement()["Statement"], *statement(Effect="Deny")["Statement"]]}, False),
    ],
)  # fmt: skip
def test_what_a_resource_policy_allows(policy: dict[str, Any] | None, expected: bool) -> None:
    assert allows(policy, CALL) is expected


# Log lines: formats from https://docs.aws.amazon.com/lambda/latest/dg/python-logging.html


def version(log_format: str) -> FunctionVersion:
    return FunctionVersion(
        "f", "$LATEST", RESOURCE, {"MemorySize": 128, "LoggingConfig": {"LogFormat": log_format, "LogGroup": "/aws/lambda/f"}}, "d"
    )


def written(log_format: str) -> list[str]:
    lines: list[str] = []
    log = InvocationLog(lambda group, stream, new: lines.extend(new), version(log_format), "s", "r-1")
    log.start()
    log.lines(["hello"])
    log.end(Report(12.3456, 40, 100.5, "success"))
    assert log.tail().decode() == "".join(line + "\n" for line in lines)
    return lines


def test_the_text_format() -> None:
    assert written("Text") == [
        "START RequestId: r-1 Version: $LATEST",
        "hello",
        "END RequestId: r-1",
        "REPORT RequestId: r-1\tDuration: 12.35 ms\tBilled Duration: 13 ms\tMemory Size: 128 MB\tMax Memory Used: 40 MB\tInit Duration: 100.50 ms\t",
    ]


def test_the_json_format() -> None:
    start, hello, report = written("JSON")
    assert '"type": "platform.start", "record": {"requestId": "r-1", "version": "$LATEST"}' in start
    assert hello == "hello"
    assert '"billedDurationMs": 13' in report


def test_the_tail_is_the_last_4_kb() -> None:
    log = InvocationLog(lambda group, stream, new: None, version("Text"), "s", "r")
    log.lines(["x" * 5000, "end"])
    assert len(log.tail()) == 4096
    assert log.tail().endswith(b"end\n")
