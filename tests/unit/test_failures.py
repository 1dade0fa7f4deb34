"""What people are told when AWS does not do what was asked: one line that says what and where, one that says what to do, an exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
from botocore import exceptions
from botocore.exceptions import ClientError

from lambdas.deploy_inference_workflow.errors import DeploymentFailedError
from pipelines.errors import PlatformError
from scones.advice import advice
from scones.console import Output
from scones.errors import ExitCode
from scones.failures import explain
from scones.options import Context
from scones.settings import load

QUOTA = (
    "The account-level service limit 'ml.m5.2xlarge for training job usage' is 0 Instances, with current utilization of 0 Instances and a "
    "request delta of 1 Instances. Please use AWS Service Quotas to request an increase for this quota."
)


def refusal(code: str, message: str = "no") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "DescribeStacks")


@pytest.mark.parametrize(
    ("error", "exit_code", "message", "hint"),
    [
        (exceptions.NoCredentialsError(), ExitCode.USAGE, "There are no AWS credentials", "aws sso login"),
        (exceptions.ProfileNotFound(profile="x"), ExitCode.USAGE, "profile (x) could not be found", "list-profiles"),
        (exceptions.UnauthorizedSSOTokenError(), ExitCode.USAGE, "has expired", "aws sso login"),
        (exceptions.TokenRetrievalError(provider="sso", error_msg="expired"), ExitCode.USAGE, "has expired", "aws sso login"),
        (refusal("ExpiredToken"), ExitCode.USAGE, "AWS refuses the credentials", "Sign in again"),
        (refusal("InvalidAccessKeyId"), ExitCode.USAGE, "AWS refuses the credentials", "Sign in again"),
        (refusal("InvalidSignatureException", "Signature expired: 2020"), ExitCode.USAGE, "Signature expired", "clock"),
        (refusal("RequestTimeTooSkewed"), ExitCode.USAGE, "RequestTimeTooSkewed", "clock"),
        (refusal("AccessDenied", "User: arn:x is not authorized to perform: y"), ExitCode.FAILED, "not authorized", "get-caller-identity"),
        (
            refusal("ResourceLimitExceeded", QUOTA),
            ExitCode.FAILED,
            "DescribeStacks was refused",
            "'ml.m5.2xlarge for training job usage' is 0",
        ),
        (refusal("LimitExceededException"), ExitCode.FAILED, "LimitExceededException", "Service Quotas"),
        (refusal("OptInRequired"), ExitCode.FAILED, "OptInRequired", "not signed up"),
        (refusal("ThrottlingException"), ExitCode.FAILED, "ThrottlingException", "Try again"),
        (refusal("Teapot", "short and stout"), ExitCode.FAILED, "DescribeStacks was refused: Teapot: short and stout", None),
        (exceptions.NoRegionError(), ExitCode.USAGE, "no AWS region", "AWS_REGION"),
        (exceptions.InvalidRegionError(region_name="-x"), ExitCode.USAGE, "-x", "aws.region"),
        (
            exceptions.EndpointConnectionError(endpoint_url="https://codeconnections.xx-1.amazonaws.com/"),
            ExitCode.UNREACHABLE,
            "codeconnections.xx-1",
            "whether that service is in the region",
        ),
        (
            exceptions.EndpointConnectionError(endpoint_url="http://127.0.0.1:1/"),
            ExitCode.UNREACHABLE,
            "localcloud at http://127.0.0.1:1",
            "scones up",
        ),
        (
            exceptions.ReadTimeoutError(endpoint_url="http://127.0.0.1:1/"),
            ExitCode.UNREACHABLE,
            "localcloud at http://127.0.0.1:1",
            "scones up",
        ),
        (PlatformError("stack x does not exist in eu-west-1; make it"), ExitCode.FAILED, "in eu-west-1", None),
        (
            DeploymentFailedError(f"The stack s is in UPDATE_ROLLBACK_COMPLETE: Endpoint (AWS::SageMaker::Endpoint): {QUOTA}"),
            ExitCode.FAILED,
            "UPDATE_ROLLBACK_COMPLETE",
            "Service Quotas",
        ),
    ],
)
def test_each_failure_says_what_and_what_to_do(error: Exception, exit_code: ExitCode, message: str, hint: str | None) -> None:
    explained = explain(error)
    assert explained is not None
    assert explained.exit_code == exit_code
    assert message in explained.message
    assert "\n" not in explained.message
    assert explained.hint is None if hint is None else hint in str(explained.hint)


def test_a_fault_of_the_program_is_not_explained_away() -> None:
    assert explain(KeyError("x")) is None


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (
            "Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist.",
            "scones aws bootstrap",
        ),
        ("User: arn:aws:sts::1:assumed-role/r/s is not authorized to perform: sagemaker:CreateModel on resource: x", "scones aws diff"),
        ("The stack s is in UPDATE_ROLLBACK_FAILED (Endpoint: gone).", "continue-update-rollback"),
        ("Could not find endpoint configuration", "deleted by hand"),
        ('The stack s is in UPDATE_ROLLBACK_FAILED: Endpoint: "Could not find endpoint "arn:x".', "aws sagemaker create-endpoint"),
        ("scones-dev-1-us-east-1 already exists", "project.name"),
    ],
)
def test_reasons_in_stacks_have_advice(reason: str, words: str) -> None:
    assert words in str(advice(reason))


def test_a_reason_that_is_clear_by_itself_gets_no_advice() -> None:
    assert advice("Accuracy 0.7 is below 0.9") is None


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signed-in profile with a region, and no region in the environment."""
    (tmp_path / "config").write_text("[default]\nregion = eu-west-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        # Its end puts back what was there, whatever `load` sets.
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("profile")
def test_on_aws_settings_and_clients_are_in_one_region(tmp_path: Path) -> None:
    import boto3

    here, aws = (Context(Output(), tmp_path, on_aws) for on_aws in (False, True))
    assert load(here, None, ()).settings.aws.region == "us-east-1"
    assert load(aws, None, ()).settings.aws.region == "eu-west-1"
    assert boto3.Session().region_name == "eu-west-1"
    assert load(aws, None, ("aws.region=ap-south-1",)).settings.aws.region == "ap-south-1"
    assert boto3.Session().region_name == "ap-south-1"


def test_who_asks_for_another_region_than_localclouds_is_told_that_it_counts_on_aws_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    context = Context(Output(), tmp_path, aws=False)
    assert load(context, None, ()).settings.aws.region == "us-east-1"
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    for overrides, origin in ((), "environment variable AWS_REGION"), (("aws.region=eu-west-1",), "--set aws.region"):
        assert load(context, None, overrides).settings.aws.region == "us-east-1"
        assert capsys.readouterr().err == f"localcloud is us-east-1; aws.region eu-west-1 ({origin}) counts with --aws.\n"
