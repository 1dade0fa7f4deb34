"""`scones status` in an account that serves other projects too."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import boto3
from moto import mock_aws

from scones.commands import status
from scones.options import Context


def test_only_the_project_s_endpoints_are_shown() -> None:
    with mock_aws():
        sagemaker: Any = boto3.client("sagemaker", region_name="us-east-1")
        for name in ("bikes-production", "scones-other-staging", "scones-production", "scones-staging"):
            sagemaker.create_model(ModelName=name, ExecutionRoleArn="arn:aws:iam::123456789012:role/model")
            variant = {"VariantName": "all", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
            sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
            sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        context = cast(Context, SimpleNamespace(target=SimpleNamespace(client=lambda service: sagemaker)))
        shown = [item.endpoint for item in status._endpoints(context, "scones")]
    assert shown == ["scones-production", "scones-staging"]
