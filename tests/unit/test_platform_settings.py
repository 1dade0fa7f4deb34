"""What the settings choose of the platform stack reaches it, and only what its template takes."""

from __future__ import annotations

import re

import pytest

from infrastructure.deploy import PlatformParameters
from infrastructure.packaging import PLATFORM_TEMPLATE
from infrastructure.templates import Template
from pipelines.errors import SettingsError
from pipelines.settings import load_settings
from scones.platform import platform_parameters

PARAMETERS = Template.read(PLATFORM_TEMPLATE).document["Parameters"]
KEY = "arn:aws:kms:us-east-1:123456789012:key/1234"
BOUNDARY = "arn:aws:iam::123456789012:policy/team/boundary"
APP = "arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/app-1"
SERVER = "arn:aws:sagemaker:us-east-1:123456789012:mlflow-tracking-server/tracking"


def chosen(*overrides: str, stage: str = "dev") -> dict[str, str]:
    return platform_parameters(load_settings(stage, overrides, environ={}).settings).for_template()


def test_what_the_settings_leave_alone_is_as_the_template_says() -> None:
    assert chosen() == PlatformParameters().for_template()


@pytest.mark.parametrize(
    ("override", "parameter", "value"),
    [
        ("platform.notification_email=team@example.com", "NotificationEmail", "team@example.com"),
        ("platform.image_bucket=photos-of-customers", "ImageBucketName", "photos-of-customers"),
        ("platform.log_retention_days=90", "LogRetentionInDays", "90"),
        (f"platform.permissions_boundary_arn={BOUNDARY}", "PermissionsBoundaryArn", BOUNDARY),
        (f"platform.encryption_key_arn={KEY}", "EncryptionKeyArn", KEY),
        ("platform.access_log_bucket=access-logs", "AccessLogBucketName", "access-logs"),
        ("platform.monthly_budget_usd=250", "MonthlyBudget", "250"),
        (f"mlflow.tracking_uri={SERVER}", "MlflowTrackingServerArn", SERVER),
        ("registry.approval_status=Approved", "NewVersionsMayBe", "Approved"),
        (f"mlflow.tracking_uri={APP}", "MlflowAppArn", APP),
        (f"mlflow.tracking_uri={APP}", "MlflowTrackingServerArn", ""),
        ("mlflow.tracking_uri=https://mlflow.example.com", "MlflowTrackingServerArn", ""),
        ("production.kind=instance", "ServingMode", "instance"),
        ("production.instance_type=ml.m5.large", "ServingInstanceType", "ml.m5.large"),
        ("production.instance_count=3", "ServingInstanceCount", "3"),
        ("production.traffic_shifting=linear", "TrafficShifting", "linear"),
        ("production.traffic_shift_wait_seconds=60", "TrafficShiftWaitInSeconds", "60"),
        ("production.kept_versions=5", "KeptVersions", "5"),
        ("production.serverless_memory_mb=3072", "ServerlessMemoryInMB", "3072"),
        ("production.serverless_max_concurrency=7", "ServerlessMaxConcurrency", "7"),
        ("evaluation.confidence_threshold=0.8", "ConfidenceThreshold", "0.8"),
    ],
)
def test_a_setting_reaches_its_parameter(override: str, parameter: str, value: str) -> None:
    found = chosen(override)
    assert found[parameter] == value
    spec = PARAMETERS[parameter]
    assert re.fullmatch(spec.get("AllowedPattern", ".*"), value)
    assert value in [str(allowed) for allowed in spec.get("AllowedValues", [value])]


@pytest.mark.parametrize(
    "override",
    [
        "platform.notification_email=nobody",
        "platform.log_retention_days=31",
        "platform.permissions_boundary_arn=boundary",
        "platform.encryption_key_arn=alias/scones",
        "platform.monthly_budget_usd=-1",
        "production.kind=kubernetes",
        "production.traffic_shifting=blue",
        "production.traffic_shift_wait_seconds=601",
    ],
)
def test_what_the_template_would_refuse_is_refused_before(override: str) -> None:
    with pytest.raises(SettingsError, match=override.partition("=")[0]):
        chosen(override)


@pytest.mark.parametrize("stage", ["staging", "production"])
def test_production_and_its_rehearsal_serve_on_instances(stage: str) -> None:
    assert chosen(stage=stage)["ServingMode"] == "instance"
