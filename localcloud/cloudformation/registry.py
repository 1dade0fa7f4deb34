"""Which resource types there are."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from localcloud.cloudformation.blueprint import Registry
from localcloud.cloudformation.provider import Provider
from localcloud.cloudformation.providers import (
    cloudformation,
    cloudwatch,
    codebuild,
    codeconnections,
    codepipeline,
    custom,
    events,
    iam,
    kms,
    lambda_,
    logs,
    s3,
    sagemaker,
    secretsmanager,
    sns,
    sqs,
    ssm,
    stepfunctions,
)

_CUSTOM = re.compile(r"Custom::[A-Za-z0-9_@-]{1,60}")
_PROVIDERS: tuple[type[Provider], ...] = (
    cloudformation.WaitConditionHandle,
    cloudwatch.Alarm,
    cloudwatch.Dashboard,
    codebuild.Project,
    codeconnections.Connection,
    codeconnections.StarConnection,
    codepipeline.Pipeline,
    events.EventBus,
    events.Rule,
    iam.ManagedPolicy,
    iam.OIDCProvider,
    iam.Policy,
    iam.Role,
    kms.Alias,
    kms.Key,
    lambda_.Alias,
    lambda_.EventInvokeConfig,
    lambda_.Function,
    lambda_.LayerVersion,
    lambda_.Permission,
    lambda_.Version,
    logs.LogGroup,
    s3.Bucket,
    s3.BucketPolicy,
    sagemaker.Endpoint,
    sagemaker.EndpointConfig,
    sagemaker.Model,
    sagemaker.ModelPackageGroup,
    sagemaker.Pipeline,
    secretsmanager.Secret,
    sns.Subscription,
    sns.Topic,
    sns.TopicPolicy,
    sqs.Queue,
    sqs.QueuePolicy,
    ssm.Parameter,
    stepfunctions.StateMachine,
    stepfunctions.StateMachineAlias,
    stepfunctions.StateMachineVersion,
)


def build_registry(parent: cloudformation.ParentStacks, clients: Callable[[str], Any]) -> Registry:
    """Return the function that finds the provider of a resource type.

    Args:
        parent: What nested stacks need of CloudFormation beyond its API.
        clients: CloudFormation's own clients, for what it does in its own account on AWS.
    """
    providers: dict[str, Provider] = {provider.type: provider() for provider in _PROVIDERS}
    providers["AWS::CloudFormation::Stack"] = cloudformation.NestedStack(parent)
    providers["AWS::CloudFormation::CustomResource"] = custom.CustomResource("AWS::CloudFormation::CustomResource", clients)

    def find(type_name: str) -> Provider | None:
        if type_name not in providers and _CUSTOM.fullmatch(type_name):
            providers[type_name] = custom.CustomResource(type_name, clients)
        return providers.get(type_name)

    return find
