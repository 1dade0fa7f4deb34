"""Constraints that botocore does not check, in AWS's words."""

from __future__ import annotations

from typing import Any

import pytest
from moto.core.utils import get_service_model

from localcloud.validation import constraint_errors


def errors(operation: str, **params: Any) -> list[str]:
    shape = get_service_model("sagemaker").operation_model(operation).input_shape
    assert shape is not None
    return constraint_errors(params, shape)


def test_a_good_request_has_no_errors() -> None:
    assert errors("DescribeEndpoint", EndpointName="scones-production") == []


@pytest.mark.parametrize(
    ("operation", "params", "expected"),
    [
        (
            "DescribeEndpoint",
            {"EndpointName": "no_underscores"},
            "Value 'no_underscores' at 'endpointName' failed to satisfy constraint: Member must satisfy regular expression pattern",
        ),
        ("DescribeEndpoint", {"EndpointName": "x" * 64}, "Member must have length less than or equal to 63"),
        (
            "UpdateModelPackage",
            {"ModelApprovalStatus": "Maybe"},
            "Member must satisfy enum value set: [Approved, Rejected, PendingManualApproval",
        ),
        ("ListPipelineExecutions", {"MaxResults": 101}, "Member must have value less than or equal to 100"),
        ("CreateEndpointConfig", {"ProductionVariants": [{"VariantName": "no spaces"}]}, "at 'productionVariants.1.member.variantName'"),
    ],
)
def test_a_broken_constraint_is_named(operation: str, params: dict[str, Any], expected: str) -> None:
    found = errors(operation, **params)
    assert any(expected in error for error in found), found
