"""CloudFormation on a running region: every resource type made, changed, put back and deleted by the services themselves."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from infrastructure.deploy import platform_data
from localcloud.cloudformation.readers import READERS

Json = Any
Poll = Callable[..., Any]

#: Every type that needs no model server, with most of its properties.
EVERYTHING = """
Parameters:
  Suffix: {Type: String, Default: one}
  Retention: {Type: Number, Default: 7}
Resources:
  Bucket:
    Type: AWS::S3::Bucket
    Properties:
      VersioningConfiguration: {Status: Enabled}
      BucketEncryption: {ServerSideEncryptionConfiguration: [{ServerSideEncryptionByDefault: {SSEAlgorithm: AES256}}]}
      PublicAccessBlockConfiguration: {BlockPublicAcls: true, BlockPublicPolicy: true, IgnorePublicAcls: true, RestrictPublicBuckets: true}
      OwnershipControls: {Rules: [{ObjectOwnership: BucketOwnerEnforced}]}
      CorsConfiguration: {CorsRules: [{AllowedMethods: [GET], AllowedOrigins: ["*"], MaxAge: 60, ExposedHeaders: [x]}]}
      LifecycleConfiguration:
        Rules:
          - {Id: a, Status: Enabled, ExpirationInDays: !Ref Retention, Prefix: tmp/}
          - {Id: b, Status: Enabled, TagFilters: [{Key: k, Value: v}], Transitions: [{StorageClass: GLACIER, TransitionInDays: 30}], NoncurrentVersionTransitions: [{StorageClass: STANDARD_IA, TransitionInDays: 40}]}
          - {Id: c, Status: Enabled, Prefix: x, ObjectSizeGreaterThan: "100", AbortIncompleteMultipartUpload: {DaysAfterInitiation: 3}}
      NotificationConfiguration:
        EventBridgeConfiguration: {EventBridgeEnabled: true}
      Tags: [{Key: suffix, Value: !Ref Suffix}]
  LogBucket:
    Type: AWS::S3::Bucket
    DependsOn: BucketPolicy
  BucketPolicy:
    Type: AWS::S3::BucketPolicy
    Properties:
      Bucket: !Ref Bucket
      PolicyDocument: {Version: 2012-10-17, Statement: [{Effect: Deny, Principal: "*", Action: "s3:*", Resource: !Sub "${Bucket.Arn}/${Suffix}", Condition: {Bool: {"aws:SecureTransport": "false"}}}, {Effect: Allow, Principal: {Service: logging.s3.amazonaws.com}, Action: "s3:PutObject", Resource: !Sub "${Bucket.Arn}/logs/*"}]}
  Role:
    Type: AWS::IAM::Role
    Properties:
      Description: !Sub "role ${Suffix}"
      AssumeRolePolicyDocument: {Version: 2012-10-17, Statement: [{Effect: Allow, Principal: {Service: [lambda.amazonaws.com, states.amazonaws.com, sagemaker.amazonaws.com]}, Action: sts:AssumeRole}]}
      ManagedPolicyArns: [!Ref Managed, arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole]
      Policies: [{PolicyName: everything, PolicyDocument: {Version: 2012-10-17, Statement: [{Effect: Allow, Action: "*", Resource: "*"}]}}, {PolicyName: inline, PolicyDocument: {Version: 2012-10-17, Statement: [{Effect: Allow, Action: "s3:*", Resource: !Sub "${Bucket.Arn}/*"}]}}]
      Tags: [{Key: suffix, Value: !Ref Suffix}]
  Policy:
    Type: AWS::IAM::Policy
    Properties:
      PolicyName: extra
      PolicyDocument: {Version: 2012-10-17, Statement: [{Effect: Allow, Action: "sqs:*", Resource: !GetAtt Queue.Arn, Sid: !Ref Suffix}]}
      Roles: [!Ref Role]
  Managed:
    Type: AWS::IAM::ManagedPolicy
    Properties:
      PolicyDocument: {Version: 2012-10-17, Statement: [{Effect: Allow, Action: "sns:*", Resource: "*", Sid: !Ref Suffix}]}
  Identities:
    Type: AWS::IAM::OIDCProvider
    Properties:
      Url: !Sub https://${AWS::StackName}.example.com
      ClientIdList: [everybody, !Sub "for-${Retention}"]
      ThumbprintList: [!Sub "${Retention}000000000000000000000000000000000000000"]
      Tags: [{Key: suffix, Value: !Ref Suffix}]
  DeadLetters: {Type: AWS::SQS::Queue}
  Queue:
    Type: AWS::SQS::Queue
    Properties:
      VisibilityTimeout: 45
      RedrivePolicy: {deadLetterTargetArn: !GetAtt DeadLetters.Arn, maxReceiveCount: 3}
      Tags: [{Key: suffix, Value: !Ref Suffix}]
  Fifo: {Type: AWS::SQS::Queue, Properties: {FifoQueue: true, ContentBasedDeduplication: true}}
  QueuePolicy:
    Type: AWS::SQS::QueuePolicy
    Properties:
      Queues: [!Ref Queue]
      PolicyDocument: {Version: 2012-10-17, Statement: [{Effect: Allow, Principal: {Service: [events.amazonaws.com, sns.amazonaws.com]}, Action: "sqs:SendMessage", Resource: !GetAtt Queue.Arn}]}
  Topic:
    Type: AWS::SNS::Topic
    Properties:
      DisplayName: !Ref Suffix
      Subscription: [{Protocol: sqs, Endpoint: !GetAtt DeadLetters.Arn}]
  Subscription:
    Type: AWS::SNS::Subscription
    Properties: {TopicArn: !Ref Topic, Protocol: sqs, Endpoint: !GetAtt Queue.Arn, RawMessageDelivery: true, FilterPolicy: {kind: [!Ref Suffix]}}
  TopicPolicy:
    Type: AWS::SNS::TopicPolicy
    Properties:
      Topics: [!Ref Topic]
      PolicyDocument: {Version: 2012-10-17, Statement: [{Effect: Allow, Principal: {Service: cloudwatch.amazonaws.com}, Action: "sns:Publish", Resource: !Ref Topic, Sid: !Ref Suffix}]}
  Parameter: {Type: AWS::SSM::Parameter, Properties: {Type: String, Value: !Sub "v-${Suffix}", Tags: {suffix: !Ref Suffix}}}
  LogGroup: {Type: AWS::Logs::LogGroup, Properties: {RetentionInDays: !Ref Retention, Tags: [{Key: suffix, Value: !Ref Suffix}]}}
  Alarm:
    Type: AWS::CloudWatch::Alarm
    Properties:
      AlarmDescription: !Ref Suffix
      Namespace: AWS/SQS
      MetricName: ApproximateNumberOfMessagesVisible
      Dimensions: [{Name: QueueName, Value: !GetAtt Queue.QueueName}]
      Statistic: Maximum
      Period: "60"
      EvaluationPeriods: 1
      Threshold: 1
      ComparisonOperator: GreaterThanOrEqualToThreshold
      AlarmActions: [!Ref Topic]
      Tags: [{Key: suffix, Value: !Ref Suffix}]
  Dashboard: {Type: AWS::CloudWatch::Dashboard, Properties: {DashboardBody: !Sub '{"widgets": [], "start": "-PT1H"}'}}
  Key:
    Type: AWS::KMS::Key
    Properties:
      Description: !Ref Suffix
      EnableKeyRotation: true
      PendingWindowInDays: 7
      KeyPolicy: {Version: 2012-10-17, Statement: [{Effect: Allow, Principal: {AWS: !Sub "arn:aws:iam::${AWS::AccountId}:root"}, Action: "kms:*", Resource: "*"}]}
      Tags: [{Key: suffix, Value: !Ref Suffix}]
  KeyAlias: {Type: AWS::KMS::Alias, Properties: {AliasName: !Sub "alias/${AWS::StackName}", TargetKeyId: !Ref Key}}
  Secret:
    Type: AWS::SecretsManager::Secret
    Properties: {Description: !Ref Suffix, GenerateSecretString: {SecretStringTemplate: '{"user": "me"}', GenerateStringKey: password, PasswordLength: 20, ExcludePunctuation: true}}
  FromSecret: {Type: AWS::SSM::Parameter, Properties: {Type: String, Value: !Sub "{{resolve:secretsmanager:${Secret}:SecretString:user}}-${Suffix}"}}
  Function:
    Type: AWS::Lambda::Function
    Properties:
      Runtime: python3.13
      Handler: index.handler
      Role: !GetAtt Role.Arn
      Timeout: "10"
      Environment: {Variables: {SUFFIX: !Ref Suffix, NUMBER: 5}}
      Code:
        ZipFile: |
          import os
          def handler(event, context):
              return {"suffix": os.environ["SUFFIX"], "number": os.environ["NUMBER"], "event": event}
      Tags: [{Key: suffix, Value: !Ref Suffix}]
      ReservedConcurrentExecutions: 3
  Version: {Type: AWS::Lambda::Version, Properties: {FunctionName: !Ref Function, Description: !Ref Suffix}}
  Alias: {Type: AWS::Lambda::Alias, Properties: {FunctionName: !Ref Function, FunctionVersion: !GetAtt Version.Version, Name: live}}
  InvokeConfig:
    Type: AWS::Lambda::EventInvokeConfig
    Properties: {FunctionName: !Ref Function, Qualifier: $LATEST, MaximumRetryAttempts: 0, DestinationConfig: {OnFailure: {Destination: !GetAtt DeadLetters.Arn}}}
  Permission: {Type: AWS::Lambda::Permission, Properties: {FunctionName: !GetAtt Function.Arn, Action: lambda:InvokeFunction, Principal: events.amazonaws.com, SourceArn: !GetAtt Rule.Arn}}
  Bus: {Type: AWS::Events::EventBus, Properties: {Name: !Sub "${AWS::StackName}-bus"}}
  Rule:
    Type: AWS::Events::Rule
    Properties:
      EventPattern: {source: [big], detail-type: [!Ref Suffix]}
      State: ENABLED
      Targets:
        - Id: queue
          Arn: !GetAtt Queue.Arn
          InputTransformer: {InputPathsMap: {d: $.detail}, InputTemplate: '{"got": <d>}'}
          RetryPolicy: {MaximumRetryAttempts: 2, MaximumEventAgeInSeconds: 60}
          DeadLetterConfig: {Arn: !GetAtt DeadLetters.Arn}
  BusRule: {Type: AWS::Events::Rule, Properties: {EventBusName: !Ref Bus, EventPattern: {source: [x]}, Targets: [{Id: q, Arn: !GetAtt Queue.Arn}]}}
  StateMachine:
    Type: AWS::StepFunctions::StateMachine
    Properties:
      RoleArn: !GetAtt Role.Arn
      Definition: {StartAt: A, States: {A: {Type: Pass, Result: "${suffix}", End: true}}}
      DefinitionSubstitutions: {suffix: !Ref Suffix}
      LoggingConfiguration: {Level: ERROR, IncludeExecutionData: false, Destinations: [{CloudWatchLogsLogGroup: {LogGroupArn: !GetAtt LogGroup.Arn}}]}
      TracingConfiguration: {Enabled: false}
      Tags: [{Key: suffix, Value: !Ref Suffix}]
  MachineVersion: {Type: AWS::StepFunctions::StateMachineVersion, Properties: {StateMachineArn: !Ref StateMachine, StateMachineRevisionId: !GetAtt StateMachine.StateMachineRevisionId}}
  MachineAlias: {Type: AWS::StepFunctions::StateMachineAlias, Properties: {Name: live, RoutingConfiguration: [{StateMachineVersionArn: !Ref MachineVersion, Weight: 100}]}}
  Group: {Type: AWS::SageMaker::ModelPackageGroup, Properties: {ModelPackageGroupName: !Sub "${AWS::StackName}-group"}}
  Pipeline:
    Type: AWS::SageMaker::Pipeline
    Properties:
      PipelineName: !Sub "${AWS::StackName}-pipeline"
      PipelineDescription: !Ref Suffix
      RoleArn: !GetAtt Role.Arn
      PipelineDefinition: {PipelineDefinitionBody: '{"Version": "2020-12-01", "Metadata": {}, "Parameters": [], "Steps": [{"Name": "F", "Type": "Fail", "Arguments": {"ErrorMessage": "x"}}]}'}
  Handle: {Type: AWS::CloudFormation::WaitConditionHandle}
  Custom: {Type: Custom::Thing, Properties: {ServiceToken: !GetAtt Maker.Arn, Suffix: !Ref Suffix, Flag: true}}
  Maker:
    Type: AWS::Lambda::Function
    Properties:
      Runtime: python3.13
      Handler: index.handler
      Role: !GetAtt Role.Arn
      Code:
        ZipFile: |
          import cfnresponse
          def handler(event, context):
              properties = event["ResourceProperties"]
              if properties["Suffix"] == "bad" and event["RequestType"] != "Delete":
                  raise ValueError("bad suffix")
              cfnresponse.send(event, context, cfnresponse.SUCCESS, {"Said": properties["Suffix"].upper() + properties["Flag"]}, "thing-" + properties["Suffix"])
Outputs:
  Said: {Value: !GetAtt Custom.Said, Export: {Name: !Sub "${AWS::StackName}-said"}}
  Function: {Value: !Ref Function}
  Queue: {Value: !Ref Queue}
  Bucket: {Value: !Ref Bucket}
  Machine: {Value: !Ref StateMachine}
  Secret: {Value: !GetAtt Secret.Id}
"""

CAPABILITIES = ["CAPABILITY_NAMED_IAM"]
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6.0-cpu-py312"
SERVE = """
import json, os
def model_fn(model_dir):
    with open(os.path.join(model_dir, 'name')) as file:
        return file.read()
def transform_fn(model, body, content_type, accept):
    return json.dumps({'model': model}), 'application/json'
"""


class Stacks:
    """CloudFormation of a region, with waiting."""

    def __init__(self, region: Any) -> None:
        self.region = region
        self.client = region.client("cloudformation")
        self._ids: dict[str, str] = {}

    def settled(self, name: str) -> dict[str, Any]:
        """Return a stack when nothing is in progress on it; also one that is deleted."""

        deadline = time.monotonic() + 90
        while True:
            stack: dict[str, Any] = self.client.describe_stacks(StackName=self._ids.get(name, name))["Stacks"][0]
            self._ids[name] = stack["StackId"]
            if not stack["StackStatus"].endswith("_IN_PROGRESS"):
                return stack
            assert time.monotonic() < deadline, f"stack {name} is still in {stack['StackStatus']}"
            time.sleep(0.02)

    def create(self, name: str, template: str, **request: Any) -> dict[str, Any]:
        self._ids[name] = self.client.create_stack(StackName=name, TemplateBody=template, Capabilities=CAPABILITIES, **request)["StackId"]
        return self.settled(name)

    def update(self, name: str, template: str | None = None, **request: Any) -> dict[str, Any]:
        source = {"TemplateBody": template} if template else {"UsePreviousTemplate": True}
        self.client.update_stack(StackName=name, Capabilities=CAPABILITIES, **source, **request)
        return self.settled(name)

    def delete(self, name: str) -> dict[str, Any]:
        self.client.delete_stack(StackName=name)
        return self.settled(name)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return a stack's events, oldest first."""
        pages = self.client.get_paginator("describe_stack_events").paginate(StackName=self._ids[name])
        return [event for page in pages for event in page["StackEvents"]][::-1]

    def reasons(self, name: str) -> dict[str, str]:
        """Return why resources failed."""
        return {e["LogicalResourceId"]: e["ResourceStatusReason"] for e in self.events(name) if e["ResourceStatus"].endswith("_FAILED")}

    def resources(self, name: str) -> dict[str, str]:
        """Return the physical ids of a stack's resources."""
        pages = self.client.get_paginator("list_stack_resources").paginate(StackName=self._ids[name])
        return {r["LogicalResourceId"]: r.get("PhysicalResourceId", "") for page in pages for r in page["StackResourceSummaries"]}

    def drifted(self, name: str) -> list[dict[str, Any]]:
        """Return what is not as the stack made it; what can be compared is compared."""
        detection = self.client.detect_stack_drift(StackName=name)["StackDriftDetectionId"]
        status = self.client.describe_stack_drift_detection_status(StackDriftDetectionId=detection)
        assert status["DetectionStatus"] == "DETECTION_COMPLETE", status
        drifts = self.client.describe_stack_resource_drifts(StackName=name)["StackResourceDrifts"]
        compared = {drift["LogicalResourceId"] for drift in drifts}
        pages = self.client.get_paginator("list_stack_resources").paginate(StackName=name)
        kinds = {item["LogicalResourceId"]: item["ResourceType"] for page in pages for item in page["StackResourceSummaries"]}
        assert compared == {logical_id for logical_id, kind in kinds.items() if kind in READERS}
        found = [drift for drift in drifts if drift["StackResourceDriftStatus"] != "IN_SYNC"]
        assert (status["StackDriftStatus"], status["DriftedStackResourceCount"]) == ("DRIFTED" if found else "IN_SYNC", len(found))
        return found

    def revert(self, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Put back what was changed by hand; return the stack, and the changes that were shown before."""
        parameters = [{"ParameterKey": item["ParameterKey"], "UsePreviousValue": True} for item in self.settled(name).get("Parameters", ())]
        change_set = self.client.create_change_set(
            StackName=name,
            ChangeSetName="revert",
            UsePreviousTemplate=True,
            Parameters=parameters,
            Capabilities=CAPABILITIES,
            DeploymentMode="REVERT_DRIFT",
        )["Id"]
        shown = self.client.describe_change_set(ChangeSetName=change_set, IncludePropertyValues=True)
        assert (shown["DeploymentMode"], shown["StackDriftStatus"]) == ("REVERT_DRIFT", "DRIFTED" if shown["Changes"] else "IN_SYNC")
        if shown["Changes"]:
            self.client.execute_change_set(ChangeSetName=change_set)
        else:
            assert "didn't contain changes" in shown["StatusReason"]
            self.client.delete_change_set(ChangeSetName=change_set)
        return self.settled(name), [item["ResourceChange"] for item in shown["Changes"]]

    def outputs(self, name: str) -> dict[str, str]:
        return {output["OutputKey"]: output["OutputValue"] for output in self.settled(name)["Outputs"]}


@pytest.fixture(scope="module")
def stacks(region: Any) -> Stacks:
    return Stacks(region)


def suffix(value: str) -> list[dict[str, str]]:
    return [{"ParameterKey": "Suffix", "ParameterValue": value}]


def refused(call: Callable[..., Any], **request: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**request)
    return str(caught.value)


# --- what the services say that there is ------------------------------------------------------------------------------------------------------


def delete_by_hand(region: Any, resources: dict[str, str]) -> None:
    """Delete what a stack has that can be made again as it was."""
    c, r = region.client, resources
    c("lambda").delete_function(FunctionName=r["Function"])
    c("stepfunctions").delete_state_machine(stateMachineArn=r["StateMachine"])
    c("sns").delete_topic(TopicArn=r["Topic"])
    c("sqs").delete_queue(QueueUrl=r["Queue"])
    c("logs").delete_log_group(logGroupName=r["LogGroup"])
    c("cloudwatch").delete_alarms(AlarmNames=[r["Alarm"]])
    c("cloudwatch").delete_dashboards(DashboardNames=[r["Dashboard"]])
    for bucket in (r["Bucket"], r["LogBucket"]):
        c("s3").delete_bucket(Bucket=bucket)
    c("sagemaker").delete_model_package_group(ModelPackageGroupName=r["Group"])


def observed(region: Any, resources: dict[str, str], stack: str) -> dict[str, Json]:
    """Return what the services say of a stack's resources: by logical id, names and ids written as ``<LogicalId>``, what only time makes left out."""
    c = region.client
    r = resources
    secret = c("secretsmanager").get_secret_value(SecretId=r["Secret"])["SecretString"]
    function = c("lambda").get_function(FunctionName=r["Function"])
    seen = {
        "Bucket": {
            name: _without(getattr(c("s3"), f"get_{name}")(Bucket=r["Bucket"]), "ResponseMetadata")
            for name in (
                "bucket_versioning", "bucket_encryption", "public_access_block", "bucket_ownership_controls", "bucket_cors",
                "bucket_lifecycle_configuration", "bucket_notification_configuration", "bucket_tagging", "bucket_policy",
            )
        },
        "Role": {
            "role": _without(c("iam").get_role(RoleName=r["Role"])["Role"], "CreateDate", "RoleId", "RoleLastUsed"),
            "attached": sorted(p["PolicyArn"].replace(r["Managed"], "<Managed>") for p in c("iam").list_attached_role_policies(RoleName=r["Role"])["AttachedPolicies"]),
            "inline": {
                name: c("iam").get_role_policy(RoleName=r["Role"], PolicyName=name)["PolicyDocument"]
                for name in c("iam").list_role_policies(RoleName=r["Role"])["PolicyNames"]
            },
        },
        "Identities": _without(
            c("iam").get_open_id_connect_provider(OpenIDConnectProviderArn=r["Identities"]), "CreateDate", "ResponseMetadata"
        ),
        "Managed": c("iam").get_policy_version(
            PolicyArn=r["Managed"], VersionId=c("iam").get_policy(PolicyArn=r["Managed"])["Policy"]["DefaultVersionId"]
        )["PolicyVersion"]["Document"],
        "Queue": {
            "attributes": _without(
                c("sqs").get_queue_attributes(QueueUrl=r["Queue"], AttributeNames=["All"])["Attributes"], "CreatedTimestamp", "LastModifiedTimestamp"
            ),
            "tags": c("sqs").list_queue_tags(QueueUrl=r["Queue"])["Tags"],
        },
        "Topic": _without(c("sns").get_topic_attributes(TopicArn=r["Topic"])["Attributes"], "EffectiveDeliveryPolicy"),
        "Subscription": c("sns").get_subscription_attributes(SubscriptionArn=r["Subscription"])["Attributes"],
        "Parameter": c("ssm").get_parameter(Name=r["Parameter"])["Parameter"]["Value"],
        "ParameterTags": c("ssm").list_tags_for_resource(ResourceType="Parameter", ResourceId=r["Parameter"])["TagList"],
        "FromSecret": c("ssm").get_parameter(Name=r["FromSecret"])["Parameter"]["Value"],
        "LogGroup": _without(c("logs").describe_log_groups(logGroupNamePrefix=r["LogGroup"])["logGroups"][0], "creationTime", "storedBytes"),
        "Alarm": _without(
            c("cloudwatch").describe_alarms(AlarmNames=[r["Alarm"]])["MetricAlarms"][0],
            "AlarmConfigurationUpdatedTimestamp", "StateUpdatedTimestamp", "StateTransitionedTimestamp",
        ),
        "Dashboard": c("cloudwatch").get_dashboard(DashboardName=r["Dashboard"])["DashboardBody"],
        "Key": _without(c("kms").describe_key(KeyId=r["Key"])["KeyMetadata"], "CreationDate"),
        "KeyTags": c("kms").list_resource_tags(KeyId=r["Key"])["Tags"],
        "KeyRotation": c("kms").get_key_rotation_status(KeyId=r["Key"])["KeyRotationEnabled"],
        "Alias": [a["TargetKeyId"] for a in c("kms").list_aliases()["Aliases"] if a["AliasName"] == r["KeyAlias"]],
        "Secret": [json.loads(secret)["user"], len(json.loads(secret)["password"])],
        "Function": {
            "configuration": _without(function["Configuration"], "RevisionId", "LastModified"),
            "tags": function["Tags"],
            "concurrency": function["Concurrency"],
            "policy": json.loads(c("lambda").get_policy(FunctionName=r["Function"])["Policy"])["Statement"],
            "alias": len(c("lambda").list_aliases(FunctionName=r["Function"])["Aliases"]),
            "versions": len(c("lambda").list_versions_by_function(FunctionName=r["Function"])["Versions"]),
            "invoke": _without(
                c("lambda").get_function_event_invoke_config(FunctionName=r["Function"], Qualifier="$LATEST"), "LastModified", "ResponseMetadata"
            ),
        },
        "Rule": _without(c("events").describe_rule(Name=r["Rule"]), "ResponseMetadata"),
        "Targets": c("events").list_targets_by_rule(Rule=r["Rule"])["Targets"],
        "BusTargets": c("events").list_targets_by_rule(Rule=r["BusRule"].partition("|")[2], EventBusName=r["Bus"])["Targets"],
        "StateMachine": _without(
            c("stepfunctions").describe_state_machine(stateMachineArn=r["StateMachine"]), "creationDate", "revisionId", "ResponseMetadata"
        ),
        "MachineVersions": len(c("stepfunctions").list_state_machine_versions(stateMachineArn=r["StateMachine"])["stateMachineVersions"]),
        "Pipeline": _without(
            c("sagemaker").describe_pipeline(PipelineName=r["Pipeline"]), "CreationTime", "LastModifiedTime", "ResponseMetadata"
        ),
        "Group": c("sagemaker").describe_model_package_group(ModelPackageGroupName=f"{stack}-group")["ModelPackageGroupStatus"],
    }  # fmt: skip
    text = json.dumps(_sorted_tags(seen), sort_keys=True, default=str)
    names = {value.rpartition("/")[2].rpartition(":")[2] for value in r.values()} | set(r.values())
    by_name = {name: key for key, value in r.items() for name in names if name and (value == name or value.endswith(name))}
    for name in sorted(by_name, key=len, reverse=True):
        text = text.replace(name, f"<{by_name[name]}>") if len(name) > 4 else text
    result: dict[str, Json] = json.loads(text.replace(f"{stack}-", "<stack>-").replace(f"/{stack}/", "/<stack>/"))
    return result


def _sorted_tags(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _sorted_tags(item) for key, item in value.items()}
    if isinstance(value, list):
        items = [_sorted_tags(item) for item in value]
        return (
            sorted(items, key=str) if items and all(isinstance(item, dict) and set(item) == {"Key", "Value"} for item in items) else items
        )
    return value


def _without(document: dict[str, Json], *names: str) -> dict[str, Json]:
    return {key: value for key, value in document.items() if key not in names}


def everything(region: Any) -> dict[str, Json]:
    """Return the names of everything that there is in the region."""
    c = region.client
    return {
        "buckets": [bucket["Name"] for bucket in c("s3").list_buckets()["Buckets"] if "custom-resource-response" not in bucket["Name"]],
        "roles": [role["RoleName"] for role in c("iam").list_roles()["Roles"]],
        "policies": [policy["Arn"] for policy in c("iam").list_policies(Scope="Local")["Policies"]],
        "identity providers": c("iam").list_open_id_connect_providers()["OpenIDConnectProviderList"],
        "queues": c("sqs").list_queues().get("QueueUrls", []),
        "topics": c("sns").list_topics()["Topics"],
        "subscriptions": c("sns").list_subscriptions()["Subscriptions"],
        "parameters": c("ssm").describe_parameters()["Parameters"],
        # What functions wrote stays, as on AWS: Lambda makes those groups, not the stack.
        "groups": [g["logGroupName"] for g in c("logs").describe_log_groups()["logGroups"] if not g["logGroupName"].startswith("/aws/")],
        "alarms": c("cloudwatch").describe_alarms()["MetricAlarms"],
        "dashboards": c("cloudwatch").list_dashboards()["DashboardEntries"],
        "keys": [k["KeyId"] for k in c("kms").list_keys()["Keys"] if c("kms").describe_key(KeyId=k["KeyId"])["KeyMetadata"]["Enabled"]],
        "aliases": c("kms").list_aliases()["Aliases"],
        "secrets": c("secretsmanager").list_secrets()["SecretList"],
        "functions": [function["FunctionName"] for function in c("lambda").list_functions()["Functions"]],
        "rules": [rule["Name"] for rule in c("events").list_rules()["Rules"]],
        "buses": [bus["Name"] for bus in c("events").list_event_buses()["EventBuses"]],
        "machines": c("stepfunctions").list_state_machines()["stateMachines"],
        "models": c("sagemaker").list_models()["Models"],
        "configs": c("sagemaker").list_endpoint_configs()["EndpointConfigs"],
        "endpoints": c("sagemaker").list_endpoints()["Endpoints"],
        "model groups": c("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"],
        "pipelines": c("sagemaker").list_pipelines()["PipelineSummaries"],
    }


def test_every_type_is_made_changed_put_back_and_deleted(stacks: Stacks, region: Any) -> None:
    """An update gives what a fresh create gives, a failed one changes nothing, a delete leaves nothing: by what the services themselves say."""
    before = everything(region)
    tags = [{"Key": "team", "Value": "scones"}]
    created = stacks.create("first", EVERYTHING, Tags=tags)
    assert created["StackStatus"] == "CREATE_COMPLETE", stacks.reasons("first")
    assert stacks.outputs("first")["Said"] == "ONEtrue"
    answer = region.client("lambda").invoke(FunctionName=stacks.outputs("first")["Function"], Payload=b'"hello"')
    assert json.loads(answer["Payload"].read()) == {"suffix": "one", "number": "5", "event": "hello"}
    assert created["Tags"] == tags
    assert [(d["LogicalResourceId"], d["PropertyDifferences"]) for d in stacks.drifted("first")] == []
    assert {"Key": "team", "Value": "scones"} in region.client("s3").get_bucket_tagging(Bucket=stacks.outputs("first")["Bucket"])["TagSet"]

    assert stacks.update("first", Parameters=suffix("two"))["StackStatus"] == "UPDATE_COMPLETE", stacks.reasons("first")
    assert stacks.outputs("first")["Said"] == "TWOtrue"
    assert [(d["LogicalResourceId"], d["PropertyDifferences"]) for d in stacks.drifted("first")] == []
    updated = observed(region, stacks.resources("first"), "first")
    assert stacks.create("second", EVERYTHING, Parameters=suffix("two"), Tags=tags)["StackStatus"] == "CREATE_COMPLETE", stacks.reasons(
        "second"
    )
    fresh = observed(region, stacks.resources("second"), "second")
    # One by one, so that a difference is shown and not lost in all the rest.
    for part, seen in updated.items():
        assert seen == fresh[part], part

    # What is deleted by hand comes back as it was.
    delete_by_hand(region, stacks.resources("second"))
    stack, _ = stacks.revert("second")
    assert stack["StackStatus"] == "UPDATE_COMPLETE", stacks.reasons("second")
    assert stacks.drifted("second") == []
    again = observed(region, stacks.resources("second"), "second")
    for part, seen in again.items():
        assert seen == fresh[part], part

    identities = stacks.resources("first")
    failed = stacks.update("first", Parameters=suffix("bad"), Tags=[{"Key": "team", "Value": "other"}])
    assert failed["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert stacks.reasons("first")["Custom"] == "The function failed before it answered: ValueError: bad suffix"
    assert failed["Parameters"][0]["ParameterValue"] == "two"
    assert failed["Tags"] == tags
    assert stacks.resources("first") == identities
    assert observed(region, identities, "first") == updated

    for name in ("first", "second"):
        assert stacks.delete(name)["StackStatus"] == "DELETE_COMPLETE", stacks.reasons(name)
    assert everything(region) == before


def test_a_stack_that_fails_to_be_created_leaves_nothing(stacks: Stacks, region: Any) -> None:
    before = everything(region)
    assert stacks.create("fails", EVERYTHING, Parameters=suffix("bad"))["StackStatus"] == "ROLLBACK_COMPLETE"
    assert stacks.reasons("fails")["Custom"] == "The function failed before it answered: ValueError: bad suffix"
    assert everything(region) == before
    assert "is in ROLLBACK_COMPLETE state and can not be updated." in refused(
        stacks.client.update_stack, StackName="fails", UsePreviousTemplate=True, Capabilities=CAPABILITIES
    )
    assert stacks.delete("fails")["StackStatus"] == "DELETE_COMPLETE"


# --- endpoints --------------------------------------------------------------------------------------------------------------------------------

SERVING = """
Parameters:
  Data: {Type: String}
Resources:
  Role:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument: {Version: 2012-10-17, Statement: [{Effect: Allow, Principal: {Service: sagemaker.amazonaws.com}, Action: sts:AssumeRole}]}
      Policies: [{PolicyName: everything, PolicyDocument: {Version: 2012-10-17, Statement: [{Effect: Allow, Action: "*", Resource: "*"}]}}]
  Model:
    Type: AWS::SageMaker::Model
    Properties:
      ExecutionRoleArn: !GetAtt Role.Arn
      PrimaryContainer: {Image: !Sub "IMAGE", ModelDataUrl: !Ref Data}
  Config:
    Type: AWS::SageMaker::EndpointConfig
    Properties:
      ProductionVariants:
        - {VariantName: AllTraffic, ModelName: !GetAtt Model.ModelName, InstanceType: ml.m5.large, InitialInstanceCount: "1", InitialVariantWeight: 1}
  Endpoint:
    Type: AWS::SageMaker::Endpoint
    Properties: {EndpointName: served, EndpointConfigName: !GetAtt Config.EndpointConfigName}
Outputs:
  Arn: {Value: !Ref Endpoint}
""".replace("IMAGE", IMAGE)


def tar_gz(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def test_an_endpoint_is_served_updated_and_kept_when_its_update_fails(stacks: Stacks, region: Any) -> None:
    s3, sagemaker, runtime = (region.client(name) for name in ("s3", "sagemaker", "sagemaker-runtime"))
    s3.create_bucket(Bucket="models")
    for name, script in (("one", SERVE), ("two", SERVE), ("broken", "def model_fn(d): raise RuntimeError('weights do not fit')\n")):
        s3.put_object(Bucket="models", Key=f"{name}.tar.gz", Body=tar_gz({"name": name.encode(), "code/inference.py": script.encode()}))

    def data(name: str) -> list[dict[str, str]]:
        return [{"ParameterKey": "Data", "ParameterValue": f"s3://models/{name}.tar.gz"}]

    def served() -> str:
        answer: str = json.loads(runtime.invoke_endpoint(EndpointName="served", Body=b"{}")["Body"].read())["model"]
        return answer

    assert stacks.create("serving", SERVING, Parameters=data("one"))["StackStatus"] == "CREATE_COMPLETE", stacks.reasons("serving")
    assert served() == "one"
    assert stacks.outputs("serving")["Arn"] == "arn:aws:sagemaker:us-east-1:123456789012:endpoint/served"
    first = stacks.resources("serving")

    assert stacks.update("serving", Parameters=data("two"))["StackStatus"] == "UPDATE_COMPLETE", stacks.reasons("serving")
    assert served() == "two"
    second = stacks.resources("serving")
    assert {name for name in first if first[name] != second[name]} == {"Model", "Config"}
    # The ones before were deleted once nothing used them any more.
    assert [model["ModelArn"] for model in sagemaker.list_models()["Models"]] == [second["Model"]]
    assert [config["EndpointConfigArn"] for config in sagemaker.list_endpoint_configs()["EndpointConfigs"]] == [second["Config"]]

    assert stacks.update("serving", Parameters=data("broken"))["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert "weights do not fit" in stacks.reasons("serving")["Endpoint"]
    assert served() == "two"
    assert stacks.resources("serving") == second
    assert [model["ModelArn"] for model in sagemaker.list_models()["Models"]] == [second["Model"]]

    assert stacks.delete("serving")["StackStatus"] == "DELETE_COMPLETE", stacks.reasons("serving")
    assert sagemaker.list_endpoints()["Endpoints"] == []
    assert stacks.create("serving", SERVING, Parameters=data("broken"))["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "weights do not fit" in stacks.reasons("serving")["Endpoint"]
    assert sagemaker.list_endpoints()["Endpoints"] == []


# --- requests ---------------------------------------------------------------------------------------------------------------------------------

QUEUE = """
Parameters:
  Seconds: {Type: Number, Default: 30}
  Secret: {Type: String, Default: hidden, NoEcho: true}
Resources:
  Queue: {Type: AWS::SQS::Queue, Properties: {VisibilityTimeout: !Ref Seconds}}
Outputs:
  Url: {Value: !Ref Queue, Description: "where it is", Export: {Name: !Sub "${AWS::StackName}-url"}}
"""


def seconds(value: int) -> list[dict[str, str]]:
    return [{"ParameterKey": "Seconds", "ParameterValue": str(value)}]


def test_a_stack_as_it_is_described(stacks: Stacks) -> None:
    stacks.create("described", QUEUE, EnableTerminationProtection=True, Parameters=seconds(31))
    stack = stacks.settled("described")
    assert {key: stack[key] for key in ("StackName", "StackStatus", "EnableTerminationProtection", "DisableRollback")} == {
        "StackName": "described", "StackStatus": "CREATE_COMPLETE", "EnableTerminationProtection": True, "DisableRollback": False,
    }  # fmt: skip
    assert stack["Parameters"] == [
        {"ParameterKey": "Seconds", "ParameterValue": "31"},
        {"ParameterKey": "Secret", "ParameterValue": "****"},
    ]
    (output,) = stack["Outputs"]
    assert (output["Description"], output["ExportName"]) == ("where it is", "described-url")
    assert stacks.client.get_template(StackName="described")["TemplateBody"] == QUEUE
    detail = stacks.client.describe_stack_resource(StackName="described", LogicalResourceId="Queue")["StackResourceDetail"]
    assert (detail["ResourceStatus"], detail["PhysicalResourceId"]) == ("CREATE_COMPLETE", output["OutputValue"])
    (found,) = stacks.client.describe_stack_resources(PhysicalResourceId=output["OutputValue"])["StackResources"]
    assert found["StackName"] == "described"
    assert {"Name": "described-url", "Value": output["OutputValue"], "ExportingStackId": stack["StackId"]} in stacks.client.list_exports()[
        "Exports"
    ]
    assert "cannot be deleted while TerminationProtection is enabled" in refused(stacks.client.delete_stack, StackName="described")
    stacks.client.update_termination_protection(StackName="described", EnableTerminationProtection=False)
    stacks.delete("described")
    summaries = stacks.client.list_stacks(StackStatusFilter=["DELETE_COMPLETE"])["StackSummaries"]
    assert stack["StackId"] in [summary["StackId"] for summary in summaries]
    assert refused(stacks.client.describe_stacks, StackName="described").endswith("Stack with id described does not exist")
    assert stacks.client.describe_stacks(StackName=stack["StackId"])["Stacks"][0]["StackStatus"] == "DELETE_COMPLETE"


def test_drift_is_what_differs_from_what_the_template_sets(stacks: Stacks, region: Any) -> None:
    template = """
Resources:
  Rule: {Type: AWS::Events::Rule, Properties: {ScheduleExpression: rate(1 day), State: ENABLED}}
  Queue: {Type: AWS::SQS::Queue}
  Unread: {Type: AWS::SSM::Parameter, Properties: {Type: String, Value: x}}
  Policy:
    Type: AWS::SQS::QueuePolicy
    Properties:
      Queues: [!Ref Queue]
      PolicyDocument: {Version: 2012-10-17, Statement: [{Effect: Allow, Principal: "*", Action: "sqs:SendMessage", Resource: !GetAtt Queue.Arn}]}
"""
    assert stacks.create("drift", template)["DriftInformation"] == {"StackDriftStatus": "NOT_CHECKED"}
    assert stacks.drifted("drift") == []
    assert stacks.revert("drift")[1] == []
    rule, queue = (stacks.resources("drift")[name] for name in ("Rule", "Queue"))
    # Of what the template does not set, nothing is compared.
    region.client("events").put_rule(Name=rule, ScheduleExpression="rate(1 day)", State="ENABLED", Description="by hand")
    assert stacks.drifted("drift") == []
    region.client("events").put_rule(Name=rule, ScheduleExpression="rate(2 days)", State="DISABLED")
    region.client("sqs").set_queue_attributes(QueueUrl=queue, Attributes={"Policy": ""})
    policy, changed = sorted(stacks.drifted("drift"), key=lambda item: str(item["LogicalResourceId"]))
    assert (policy["LogicalResourceId"], policy["StackResourceDriftStatus"]) == ("Policy", "DELETED")
    assert "ActualProperties" not in policy
    assert changed["StackResourceDriftStatus"] == "MODIFIED"
    assert changed["PropertyDifferences"] == [
        {
            "PropertyPath": "/ScheduleExpression",
            "ExpectedValue": "rate(1 day)",
            "ActualValue": "rate(2 days)",
            "DifferenceType": "NOT_EQUAL",
        },
        {"PropertyPath": "/State", "ExpectedValue": "ENABLED", "ActualValue": "DISABLED", "DifferenceType": "NOT_EQUAL"},
    ]
    assert stacks.settled("drift")["DriftInformation"]["StackDriftStatus"] == "DRIFTED"
    client = stacks.client
    described = {item["LogicalResourceId"]: item for item in client.describe_stack_resources(StackName="drift")["StackResources"]}
    assert described["Rule"]["DriftInformation"]["StackResourceDriftStatus"] == "MODIFIED"
    assert described["Queue"]["DriftInformation"]["StackResourceDriftStatus"] == "IN_SYNC"
    assert described["Unread"]["DriftInformation"] == {"StackResourceDriftStatus": "NOT_CHECKED"}
    only = client.describe_stack_resource_drifts(StackName="drift", StackResourceDriftStatusFilters=["DELETED"])["StackResourceDrifts"]
    assert [item["LogicalResourceId"] for item in only] == ["Policy"]
    _, changes = stacks.revert("drift")
    assert {item["LogicalResourceId"]: (item["Action"], item["ResourceDriftStatus"]) for item in changes} == {
        "Rule": ("Modify", "MODIFIED"),
        "Policy": ("Add", "DELETED"),
    }
    (target,) = (detail["Target"] for item in changes for detail in item["Details"] if detail["Target"]["Name"] == "ScheduleExpression")
    assert (target["BeforeValue"], target["BeforeValueFrom"], target["AfterValue"]) == ("rate(2 days)", "ACTUAL_STATE", "rate(1 day)")
    assert (target["Drift"]["PreviousValue"], target["Drift"]["ActualValue"]) == ("rate(1 day)", "rate(2 days)")
    assert stacks.drifted("drift") == []
    assert region.client("events").describe_rule(Name=rule)["ScheduleExpression"] == "rate(1 day)"
    assert "Policy" in region.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["Policy"])["Attributes"]
    region.client("events").delete_rule(Name=rule)
    found = client.detect_stack_resource_drift(StackName="drift", LogicalResourceId="Rule")["StackResourceDrift"]
    assert found["StackResourceDriftStatus"] == "DELETED"
    assert "Resource Nothing does not exist" in refused(client.detect_stack_resource_drift, StackName="drift", LogicalResourceId="Nothing")
    assert "not supported by localcloud" in refused(client.detect_stack_resource_drift, StackName="drift", LogicalResourceId="Unread")
    assert "does not exist" in refused(client.describe_stack_drift_detection_status, StackDriftDetectionId="0" * 36)
    assert (
        stacks.create("undriftable", "Resources: {Queue: {Type: AWS::SQS::Queue, Properties: {QueueName: '!'}}}")["StackStatus"]
        == "ROLLBACK_COMPLETE"
    )
    assert "while it is in ROLLBACK_COMPLETE state" in refused(client.detect_stack_drift, StackName="undriftable")
    stacks.delete("drift")


def test_requests_that_are_refused(stacks: Stacks) -> None:
    client = stacks.client
    assert refused(client.update_stack, StackName="nothing", TemplateBody=QUEUE).endswith("Stack [nothing] does not exist")
    assert refused(client.describe_stack_events, StackName="nothing").endswith("Stack [nothing] does not exist")
    assert refused(client.create_stack, StackName="1x", TemplateBody=QUEUE).endswith(
        "1 validation error detected: Value '1x' at 'stackName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*"
    )
    assert "Either Template URL or Template Body must be specified." in refused(client.create_stack, StackName="x")
    assert "Member must have length less than or equal to 51200" in refused(client.create_stack, StackName="x", TemplateBody="#" * 51201)
    assert "StackPolicyBody is not supported by localcloud" in refused(
        client.create_stack, StackName="x", TemplateBody=QUEUE, StackPolicyBody="{}"
    )
    assert "cloudformation:SetStackPolicy is not supported by localcloud" in refused(
        client.set_stack_policy, StackName="x", StackPolicyBody="{}"
    )
    assert "Requires capabilities : [CAPABILITY_IAM]" in refused(client.create_stack, StackName="x", TemplateBody=SERVING, Parameters=[
        {"ParameterKey": "Data", "ParameterValue": "x"}])  # fmt: skip
    client.delete_stack(StackName="nothing")
    stacks.create("there", QUEUE)
    assert "AlreadyExistsException" in refused(client.create_stack, StackName="there", TemplateBody=QUEUE)
    assert refused(client.update_stack, StackName="there", TemplateBody=QUEUE).endswith("No updates are to be performed.")
    stacks.delete("there")


def test_a_token_makes_a_request_repeatable(stacks: Stacks) -> None:
    request = {"StackName": "repeated", "TemplateBody": QUEUE, "ClientRequestToken": "once"}
    first = stacks.client.create_stack(**request)
    assert stacks.client.create_stack(**request)["StackId"] == first["StackId"]
    stacks.settled("repeated")
    update = request | {"Parameters": seconds(40), "ClientRequestToken": "twice"}
    stacks.client.update_stack(**update)
    stacks.settled("repeated")
    assert stacks.client.update_stack(**update)["StackId"] == first["StackId"]
    stacks.delete("repeated")


def test_template_summaries(stacks: Stacks) -> None:
    summary = stacks.client.get_template_summary(TemplateBody=SERVING)
    assert summary["Capabilities"] == ["CAPABILITY_IAM"]
    assert summary["CapabilitiesReason"] == "The following resource(s) require capabilities: [AWS::IAM::Role]"
    assert summary["ResourceTypes"] == [
        "AWS::IAM::Role",
        "AWS::SageMaker::Endpoint",
        "AWS::SageMaker::EndpointConfig",
        "AWS::SageMaker::Model",
    ]
    assert summary["Parameters"] == [{"ParameterKey": "Data", "ParameterType": "String", "NoEcho": False, "ParameterConstraints": {}}]
    valid = stacks.client.validate_template(TemplateBody=QUEUE)
    assert valid["Parameters"][0] == {"ParameterKey": "Seconds", "DefaultValue": "30", "NoEcho": False}
    assert "Unresolved resource dependencies [No]" in refused(
        stacks.client.validate_template, TemplateBody="Resources: {Q: {Type: AWS::SQS::Queue, Properties: {QueueName: !Ref No}}}"
    )


@pytest.mark.parametrize(
    "url",
    [
        "{endpoint}/templates/a%20folder/queue.yaml",
        "https://templates.s3.amazonaws.com/a folder/queue.yaml",
        "https://templates.s3.us-east-1.amazonaws.com/a%20folder/queue.yaml",
        "https://s3.amazonaws.com/templates/a%20folder/queue.yaml",
        "https://s3.us-east-1.amazonaws.com/templates/a%20folder/queue.yaml",
    ],
)
def test_templates_come_from_s3(stacks: Stacks, region: Any, url: str) -> None:
    region.client("s3").create_bucket(Bucket="templates")
    region.client("s3").put_object(Bucket="templates", Key="a folder/queue.yaml", Body=QUEUE.encode())
    where = url.format(endpoint=region.endpoint_url)
    assert [item["ParameterKey"] for item in stacks.client.validate_template(TemplateURL=where)["Parameters"]] == ["Seconds", "Secret"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://example.com/a/b.yaml", "TemplateURL must be a supported URL."),
        ("http://127.0.0.1:1/a/b.yaml", "TemplateURL must be a supported URL."),
        ("s3://templates/queue.yaml", "TemplateURL must be a supported URL."),
        ("https://templates.s3.amazonaws.com/nothing.yaml", "Template URL must reference a valid S3 object to which you have access."),
        ("https://s3.amazonaws.com/templates", "TemplateURL must reference a valid S3 object to which you have access."),
    ],
)
def test_template_urls_that_are_refused(stacks: Stacks, url: str, said: str) -> None:
    assert said in refused(stacks.client.create_stack, StackName="x", TemplateURL=url)


def test_parameters_come_from_ssm(stacks: Stacks, region: Any) -> None:
    ssm = region.client("ssm")
    ssm.put_parameter(Name="/seconds", Value="33", Type="String")
    template = QUEUE.replace("{Type: Number, Default: 30}", "{Type: 'AWS::SSM::Parameter::Value<String>', Default: /seconds}")
    stack = stacks.create("from-ssm", template)
    assert stack["Parameters"][0] == {"ParameterKey": "Seconds", "ParameterValue": "/seconds", "ResolvedValue": "33"}

    def timeout() -> str:
        sqs = region.client("sqs")
        queue = stacks.resources("from-ssm")["Queue"]
        value: str = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["VisibilityTimeout"])["Attributes"]["VisibilityTimeout"]
        return value

    assert timeout() == "33"
    ssm.put_parameter(Name="/seconds", Value="34", Type="String", Overwrite=True)
    stacks.update("from-ssm")
    assert timeout() == "34"
    stacks.delete("from-ssm")
    assert "Unable to fetch parameters [/no] from parameter store" in refused(
        stacks.client.create_stack, StackName="x", TemplateBody=template, Parameters=[{"ParameterKey": "Seconds", "ParameterValue": "/no"}]
    )


def test_events_come_in_pages_and_to_eventbridge_and_sns(stacks: Stacks, region: Any, poll: Poll) -> None:
    sqs, sns, events = (region.client(name) for name in ("sqs", "sns", "events"))
    queue = sqs.create_queue(QueueName="stack-events")["QueueUrl"]
    arn = "arn:aws:sqs:us-east-1:123456789012:stack-events"
    allow = {"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": arn}]}
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": json.dumps(allow)})
    topic = sns.create_topic(Name="stack-events")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    events.put_rule(Name="stack-events", EventPattern=json.dumps({"source": ["aws.cloudformation"]}))
    events.put_targets(Rule="stack-events", Targets=[{"Id": "q", "Arn": arn}])
    try:
        many = {"Resources": {f"H{index}": {"Type": "AWS::CloudFormation::WaitConditionHandle"} for index in range(40)}}
        stacks.create("many", json.dumps(many), NotificationARNs=[topic])
        first = stacks.client.describe_stack_events(StackName="many")
        assert len(first["StackEvents"]) == 100
        assert first["StackEvents"][0]["ResourceStatus"] == "CREATE_COMPLETE"
        listed = stacks.events("many")
        assert len(listed) == len({event["EventId"] for event in listed}) == 2 + 3 * 40
        assert [event["Timestamp"] for event in listed] == sorted(event["Timestamp"] for event in listed)
        assert len(stacks.resources("many")) == 40

        bodies: list[str] = []

        def arrived() -> bool:
            for message in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
                bodies.append(message["Body"])
            return len(bodies) >= 2 * len(listed)

        poll(arrived)
        changes = [json.loads(body) for body in bodies if body.startswith("{")]
        (created,) = [
            c for c in changes if c["detail-type"] == "CloudFormation Stack Status Change" and "COMPLETE" in json.dumps(c["detail"])
        ]
        assert created["detail"]["status-details"] == {"status": "CREATE_COMPLETE", "status-reason": ""}
        notices = [body for body in bodies if "ResourceStatus='CREATE_COMPLETE'\n" in body]
        assert len(notices) == 41
        assert "LogicalResourceId='many'\n" in "".join(notices)
    finally:
        events.remove_targets(Rule="stack-events", Ids=["q"])
        events.delete_rule(Name="stack-events")
        sns.delete_topic(TopicArn=topic)
        sqs.delete_queue(QueueUrl=queue)
        stacks.delete("many")


# --- change sets ------------------------------------------------------------------------------------------------------------------------------


def change_set(stacks: Stacks, stack: str, name: str, template: str, kind: str, **request: Any) -> dict[str, Any]:
    stacks.client.create_change_set(
        StackName=stack, ChangeSetName=name, TemplateBody=template, ChangeSetType=kind, Capabilities=CAPABILITIES, **request
    )
    described: dict[str, Any] = stacks.client.describe_change_set(StackName=stack, ChangeSetName=name, IncludePropertyValues=True)
    return described


def test_change_sets_show_what_will_be_done_and_do_it(stacks: Stacks, region: Any) -> None:
    template = """
Parameters:
  Seconds: {Type: Number, Default: 30}
Resources:
  Dead: {Type: AWS::SQS::Queue, Properties: {QueueName: dead-a}}
  Queue:
    Type: AWS::SQS::Queue
    Properties: {VisibilityTimeout: !Ref Seconds, RedrivePolicy: {deadLetterTargetArn: !GetAtt Dead.Arn, maxReceiveCount: 2}}
  Old: {Type: AWS::SSM::Parameter, Properties: {Type: String, Value: !Ref Dead}}
"""
    created = change_set(stacks, "changed", "begin", template, "CREATE")
    assert created["Status"] == "CREATE_COMPLETE"
    assert stacks.client.describe_stacks(StackName="changed")["Stacks"][0]["StackStatus"] == "REVIEW_IN_PROGRESS"
    assert [(c["ResourceChange"]["Action"], c["ResourceChange"]["LogicalResourceId"]) for c in created["Changes"]] == [
        ("Add", "Dead"), ("Add", "Queue"), ("Add", "Old"),
    ]  # fmt: skip
    assert "{{changeSet:KNOWN_AFTER_APPLY}}" in created["Changes"][1]["ResourceChange"]["AfterContext"]
    stacks.client.execute_change_set(StackName="changed", ChangeSetName="begin")
    assert stacks.settled("changed")["StackStatus"] == "CREATE_COMPLETE"
    assert stacks.client.describe_change_set(StackName="changed", ChangeSetName="begin")["ExecutionStatus"] == "EXECUTE_COMPLETE"

    nothing = change_set(stacks, "changed", "nothing", template, "UPDATE")
    assert (nothing["Status"], nothing["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")
    assert nothing["StatusReason"].startswith("The submitted information didn't contain changes.")
    assert "InvalidChangeSetStatus" in refused(stacks.client.execute_change_set, StackName="changed", ChangeSetName="nothing")

    later = template.replace("dead-a", "dead-b").replace(
        "  Old: {Type: AWS::SSM::Parameter, Properties: {Type: String, Value: !Ref Dead}}\n", ""
    )
    updated = change_set(stacks, "changed", "go-on", later, "UPDATE", Parameters=seconds(50))
    changes = {c["ResourceChange"]["LogicalResourceId"]: c["ResourceChange"] for c in updated["Changes"]}
    assert {name: (c["Action"], c.get("Replacement"), c.get("PolicyAction")) for name, c in changes.items()} == {
        "Dead": ("Modify", "True", "ReplaceAndDelete"),
        "Queue": ("Modify", "False", None),
        "Old": ("Remove", None, "Delete"),
    }
    details = {(d["ChangeSource"], d["Evaluation"], d.get("CausingEntity"), d["Target"]["Name"]) for d in changes["Queue"]["Details"]}
    assert details == {
        ("ParameterReference", "Static", "Seconds", "VisibilityTimeout"),
        ("DirectModification", "Dynamic", None, "VisibilityTimeout"),
        ("ResourceAttribute", "Dynamic", "Dead.Arn", "RedrivePolicy"),
        ("DirectModification", "Dynamic", None, "RedrivePolicy"),
    }
    (name_change,) = changes["Dead"]["Details"]
    assert name_change["Target"]["RequiresRecreation"] == "Always"
    assert (name_change["Target"]["BeforeValue"], name_change["Target"]["AfterValue"]) == ("dead-a", "dead-b")
    other = change_set(stacks, "changed", "other", template, "UPDATE", Parameters=seconds(60))
    assert other["ExecutionStatus"] == "AVAILABLE"
    stacks.client.execute_change_set(StackName="changed", ChangeSetName="go-on")
    assert stacks.settled("changed")["StackStatus"] == "UPDATE_COMPLETE"
    assert set(stacks.resources("changed")) == {"Dead", "Queue"}
    statuses = {s["ChangeSetName"]: s["ExecutionStatus"] for s in stacks.client.list_change_sets(StackName="changed")["Summaries"]}
    assert statuses == {"begin": "EXECUTE_COMPLETE", "nothing": "UNAVAILABLE", "go-on": "EXECUTE_COMPLETE", "other": "OBSOLETE"}
    stacks.client.delete_change_set(StackName="changed", ChangeSetName="other")
    assert "ChangeSetNotFound" in refused(stacks.client.describe_change_set, StackName="changed", ChangeSetName="other")
    assert "ChangeSetType IMPORT for a stack that exists is not supported by localcloud" in refused(
        stacks.client.create_change_set, StackName="changed", ChangeSetName="i", ChangeSetType="IMPORT", TemplateBody=template
    )
    stacks.delete("changed")


#: What may be imported, and what is wrong in it: (changed template, changed ResourcesToImport, words of the answer).
IMPORTED = {
    "B": {"Type": "AWS::S3::Bucket", "DeletionPolicy": "Retain", "Properties": {"BucketName": "was-there"}},
    "G": {"Type": "AWS::SageMaker::ModelPackageGroup", "DeletionPolicy": "Retain", "Properties": {"ModelPackageGroupName": "was-there"}},
}
GROUP_ARN = "arn:aws:sagemaker:us-east-1:123456789012:model-package-group/was-there"
TO_IMPORT = {
    "B": {"ResourceType": "AWS::S3::Bucket", "ResourceIdentifier": {"BucketName": "was-there"}},
    "G": {"ResourceType": "AWS::SageMaker::ModelPackageGroup", "ResourceIdentifier": {"ModelPackageGroupArn": GROUP_ARN}},
}


def import_request(template: Json, wanted: Json, **more: Json) -> Json:
    return {
        "StackName": "imported",
        "ChangeSetName": "import",
        "ChangeSetType": "IMPORT",
        "TemplateBody": json.dumps({"Resources": template, **more}),
        "ResourcesToImport": [{"LogicalResourceId": name, **item} for name, item in wanted.items()],
    }


@pytest.mark.parametrize(
    ("template", "wanted", "words"),
    [
        (IMPORTED, {}, "ResourcesToImport must be specified"),
        (IMPORTED, {"B": TO_IMPORT["B"]}, r"\[G\] is missing from ResourceToImport list"),
        ({"B": IMPORTED["B"]}, TO_IMPORT, r"\[G\] to import do not exist in the template"),
        ({"B": {**IMPORTED["B"], "DeletionPolicy": None}}, {"B": TO_IMPORT["B"]}, "must have DeletionPolicy"),
        ({"B": IMPORTED["B"]}, {"B": {**TO_IMPORT["B"], "ResourceType": "AWS::SQS::Queue"}}, "is of type AWS::S3::Bucket in the template"),
        ({"B": IMPORTED["B"]}, {"B": {**TO_IMPORT["B"], "ResourceIdentifier": {"Arn": "x"}}}, r"must be \[BucketName\]"),
        ({"B": {**IMPORTED["B"], "Properties": {}}}, {"B": TO_IMPORT["B"]}, "must have BucketName in the template"),
        (
            {"Q": {"Type": "AWS::SQS::Queue", "DeletionPolicy": "Retain"}},
            {"Q": {"ResourceType": "AWS::SQS::Queue", "ResourceIdentifier": {"QueueUrl": "x"}}},
            "Import of a resource of type AWS::SQS::Queue is not supported by localcloud",
        ),
    ],
)
def test_an_import_that_does_not_fit_is_refused(stacks: Stacks, template: Json, wanted: Json, words: str) -> None:
    template = {name: {key: value for key, value in resource.items() if value is not None} for name, resource in template.items()}
    with pytest.raises(ClientError, match=words):
        stacks.client.create_change_set(**import_request(template, wanted))
    assert "does not exist" in refused(stacks.client.describe_stacks, StackName="imported")


def test_an_import_takes_what_is_there_as_it_is_and_a_failed_one_leaves_it(stacks: Stacks, region: Any) -> None:
    s3, sagemaker = region.client("s3"), region.client("sagemaker")
    s3.create_bucket(Bucket="was-there")
    s3.put_object(Bucket="was-there", Key="kept", Body=b"x")
    outputs = {"Outputs": {"Name": {"Value": {"Ref": "B"}}}}
    assert "cannot modify or add [Outputs]" in refused(stacks.client.create_change_set, **import_request(IMPORTED, TO_IMPORT, **outputs))
    stacks._ids["imported"] = stacks.client.create_change_set(**import_request(IMPORTED, TO_IMPORT))["StackId"]
    changes = stacks.client.describe_change_set(StackName="imported", ChangeSetName="import")["Changes"]
    assert {(item["ResourceChange"]["Action"], item["ResourceChange"]["PhysicalResourceId"]) for item in changes} == {
        ("Import", "was-there"),
        ("Import", GROUP_ARN),
    }
    stacks.client.execute_change_set(StackName="imported", ChangeSetName="import")
    assert stacks.settled("imported")["StackStatus"] == "IMPORT_ROLLBACK_COMPLETE"
    assert stacks.resources("imported") == {}
    assert f"identifier '{GROUP_ARN}' was not found" in stacks.reasons("imported")["G"]
    stacks.delete("imported")

    sagemaker.create_model_package_group(ModelPackageGroupName="was-there")
    stacks._ids["imported"] = stacks.client.create_change_set(**import_request(IMPORTED, TO_IMPORT))["StackId"]
    stacks.client.execute_change_set(StackName="imported", ChangeSetName="import")
    assert stacks.settled("imported")["StackStatus"] == "IMPORT_COMPLETE"
    assert set(stacks.resources("imported")) == {"B", "G"}
    assert stacks.client.list_change_sets(StackName="imported")["Summaries"][0]["ExecutionStatus"] == "EXECUTE_COMPLETE"
    second = {**import_request({"B": IMPORTED["B"]}, {"B": TO_IMPORT["B"]}), "StackName": "thief"}
    assert "already belongs to the stack imported" in refused(stacks.client.create_change_set, **second)
    # From here on it is a stack like any other.
    queue = {"Q": {"Type": "AWS::SQS::Queue"}}
    stacks.client.update_stack(StackName="imported", TemplateBody=json.dumps({"Resources": IMPORTED | queue, **outputs}))
    assert stacks.settled("imported")["StackStatus"] == "UPDATE_COMPLETE"
    stacks.delete("imported")
    assert s3.get_object(Bucket="was-there", Key="kept")["Body"].read() == b"x"
    sagemaker.delete_model_package_group(ModelPackageGroupName="was-there")


# --- stacks in stacks, and things under way ---------------------------------------------------------------------------------------------------


def test_nested_stacks(stacks: Stacks, region: Any) -> None:
    s3 = region.client("s3")
    s3.create_bucket(Bucket="nested")
    child = """
Parameters:
  Seconds: {Type: Number}
  Names: {Type: CommaDelimitedList}
Resources:
  Queue: {Type: AWS::SQS::Queue, Properties: {VisibilityTimeout: !Ref Seconds}}
Outputs:
  Seen: {Value: !Join ["+", !Ref Names]}
"""
    s3.put_object(Bucket="nested", Key="child.yaml", Body=child.encode())
    parent = """
Parameters:
  Seconds: {Type: String}
Resources:
  Child:
    Type: AWS::CloudFormation::Stack
    Properties:
      TemplateURL: https://nested.s3.amazonaws.com/child.yaml
      Parameters: {Seconds: !Ref Seconds, Names: [a, b]}
  Seen: {Type: AWS::SSM::Parameter, Properties: {Type: String, Value: !GetAtt Child.Outputs.Seen}}
"""

    def with_seconds(value: str) -> list[dict[str, str]]:
        return [{"ParameterKey": "Seconds", "ParameterValue": value}]

    assert stacks.create("parent", parent, Parameters=with_seconds("20"))["StackStatus"] == "CREATE_COMPLETE", stacks.reasons("parent")
    child_id = stacks.resources("parent")["Child"]
    (described,) = stacks.client.describe_stacks(StackName=child_id)["Stacks"]
    assert described["ParentId"] == described["RootId"] == stacks.settled("parent")["StackId"]
    assert described["StackName"].startswith("parent-Child-")
    assert region.client("ssm").get_parameter(Name=stacks.resources("parent")["Seen"])["Parameter"]["Value"] == "a+b"
    # A template that changed behind the same URL is noticed.
    s3.put_object(Bucket="nested", Key="child.yaml", Body=child.replace('"+"', '"-"').encode())
    assert stacks.update("parent", parent, Parameters=with_seconds("21"))["StackStatus"] == "UPDATE_COMPLETE", stacks.reasons("parent")
    assert region.client("ssm").get_parameter(Name=stacks.resources("parent")["Seen"])["Parameter"]["Value"] == "a-b"
    # One that fails is rolled back, and so is its parent, to a template that is no longer at the URL.
    bad = "  Bad: {Type: AWS::S3::BucketPolicy, Properties: {Bucket: no-such-bucket, PolicyDocument: {Statement: []}}}\nOutputs:"
    s3.put_object(Bucket="nested", Key="child.yaml", Body=child.replace("Outputs:", bad).encode())
    assert stacks.update("parent", parent, Parameters=with_seconds("22"))["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE", stacks.reasons(
        "parent"
    )
    assert stacks.reasons("parent")["Child"].startswith(f"Embedded stack {child_id} was not successfully updated.")
    # And one that succeeded is put back when something else in its parent fails.
    s3.put_object(Bucket="nested", Key="child.yaml", Body=child.replace('"+"', '"*"').encode())
    beside = (
        "  Bad: {Type: AWS::S3::BucketPolicy, DependsOn: Child, Properties: {Bucket: no-such-bucket, PolicyDocument: {Statement: []}}}\n"
    )
    assert stacks.update("parent", parent + beside, Parameters=with_seconds("22"))["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert region.client("ssm").get_parameter(Name=stacks.resources("parent")["Seen"])["Parameter"]["Value"] == "a-b"
    queue = stacks.client.describe_stack_resource(StackName=child_id, LogicalResourceId="Queue")["StackResourceDetail"][
        "PhysicalResourceId"
    ]
    attributes = region.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["VisibilityTimeout"])["Attributes"]
    assert attributes == {"VisibilityTimeout": "21"}
    assert stacks.delete("parent")["StackStatus"] == "DELETE_COMPLETE"
    assert stacks.client.describe_stacks(StackName=child_id)["Stacks"][0]["StackStatus"] == "DELETE_COMPLETE"


SLOW = """
Parameters:
  Bucket: {Type: String}
  Name: {Type: String, Default: slow-topic}
  Do: {Type: String, Default: wait}
Resources:
  Role:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument: {Version: 2012-10-17, Statement: [{Effect: Allow, Principal: {Service: lambda.amazonaws.com}, Action: sts:AssumeRole}]}
      Policies: [{PolicyName: everything, PolicyDocument: {Version: 2012-10-17, Statement: [{Effect: Allow, Action: "*", Resource: "*"}]}}]
  Topic: {Type: AWS::SNS::Topic, Properties: {TopicName: !Ref Name}}
  Maker:
    Type: AWS::Lambda::Function
    Properties:
      Runtime: python3.13
      Handler: index.handler
      Role: !GetAtt Role.Arn
      Timeout: 120
      Code:
        ZipFile: |
          import boto3, cfnresponse, time
          def handler(event, context):
              # Waits for the test to say that it may go on.
              properties = event["ResourceProperties"]
              while event["RequestType"] != "Delete" and properties["Do"] == "wait":
                  if boto3.client("s3").list_objects_v2(Bucket=properties["Bucket"], Prefix="go-on")["KeyCount"]:
                      break
                  time.sleep(0.05)
              cfnresponse.send(event, context, cfnresponse.SUCCESS, {}, "slow")
  Slow:
    Type: Custom::Slow
    DependsOn: Topic
    Properties: {ServiceToken: !GetAtt Maker.Arn, Bucket: !Ref Bucket, Do: !Ref Do}
  After: {Type: AWS::SQS::Queue, DependsOn: Slow}
"""


def parameters(**values: str) -> list[dict[str, str]]:
    return [{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()]


def test_one_operation_at_a_time_and_a_delete_ends_a_create(stacks: Stacks, region: Any, poll: Poll) -> None:
    s3 = region.client("s3")
    s3.create_bucket(Bucket="slow")
    request = {"StackName": "slow", "TemplateBody": SLOW, "Capabilities": CAPABILITIES, "Parameters": parameters(Bucket="slow")}
    stack_id = stacks.client.create_stack(**request)["StackId"]

    def under_way() -> bool:
        status = stacks.client.describe_stack_resources(StackName="slow")["StackResources"]
        return any(r["LogicalResourceId"] == "Slow" for r in status)

    poll(under_way)
    assert "is in CREATE_IN_PROGRESS state and can not be updated." in refused(stacks.client.update_stack, **request)
    stacks.client.delete_stack(StackName="slow")
    s3.put_object(Bucket="slow", Key="go-on")
    assert stacks.settled(stack_id)["StackStatus"] == "DELETE_COMPLETE"
    assert "After" not in [event["LogicalResourceId"] for event in stacks.events(stack_id)]
    assert "slow-topic" not in json.dumps(region.client("sns").list_topics()["Topics"])


def test_an_update_can_be_cancelled(stacks: Stacks, region: Any, poll: Poll) -> None:
    s3 = region.client("s3")
    s3.delete_object(Bucket="slow", Key="go-on")
    assert stacks.create("cancelled", SLOW, Parameters=parameters(Bucket="slow", Do="nothing"))["StackStatus"] == "CREATE_COMPLETE"
    before = stacks.resources("cancelled")
    changed = SLOW.replace("DependsOn: Slow}", "DependsOn: Slow, Properties: {DelaySeconds: 5}}")
    stacks.client.update_stack(StackName="cancelled", TemplateBody=changed, Capabilities=CAPABILITIES, Parameters=parameters(Bucket="slow"))
    poll(lambda: stacks.events("cancelled")[-1]["LogicalResourceId"] == "Slow")
    stacks.client.cancel_update_stack(StackName="cancelled")
    s3.put_object(Bucket="slow", Key="go-on")
    assert stacks.settled("cancelled")["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert [e["ResourceStatusReason"] for e in stacks.events("cancelled") if e["ResourceStatus"] == "UPDATE_ROLLBACK_IN_PROGRESS"] == [
        "User Initiated"
    ]
    assert stacks.resources("cancelled") == before
    assert "cannot be called from current stack status" in refused(stacks.client.cancel_update_stack, StackName="cancelled")
    assert stacks.delete("cancelled")["StackStatus"] == "DELETE_COMPLETE"


def test_many_stacks_at_once(stacks: Stacks, region: Any) -> None:
    names = [f"at-once-{index}" for index in range(6)]
    threads = [threading.Thread(target=stacks.create, args=(name, QUEUE)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {stacks.settled(name)["StackStatus"] for name in names} == {"CREATE_COMPLETE"}
    for name in names:
        assert stacks.delete(name)["StackStatus"] == "DELETE_COMPLETE"


# --- custom resources -------------------------------------------------------------------------------------------------------------------------

CUSTOM = """
Parameters:
  Id: {Type: String}
  Do: {Type: String, Default: answer}
Resources:
  Role:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument: {Version: 2012-10-17, Statement: [{Effect: Allow, Principal: {Service: lambda.amazonaws.com}, Action: sts:AssumeRole}]}
      Policies: [{PolicyName: everything, PolicyDocument: {Version: 2012-10-17, Statement: [{Effect: Allow, Action: "*", Resource: "*"}]}}]
  Said: {Type: AWS::SSM::Parameter, Properties: {Name: /said, Type: String, Value: "-"}}
  Maker:
    Type: AWS::Lambda::Function
    Properties:
      Runtime: python3.13
      Handler: index.handler
      Role: !GetAtt Role.Arn
      Code:
        ZipFile: |
          import boto3, cfnresponse
          def handler(event, context):
              ssm = boto3.client("ssm")
              properties = event["ResourceProperties"]
              line = ",".join([event["RequestType"], event.get("PhysicalResourceId", ""), str(event.get("OldResourceProperties", {}).get("Id"))])
              ssm.put_parameter(Name="/said", Value=ssm.get_parameter(Name="/said")["Parameter"]["Value"] + " " + line, Overwrite=True)
              if event["RequestType"] != "Delete" and properties["Do"] == "fail":
                  cfnresponse.send(event, context, cfnresponse.FAILED, {}, reason="cannot")
              elif properties["Do"] == "silence" and event["RequestType"] != "Delete":
                  return
              else:
                  cfnresponse.send(event, context, cfnresponse.SUCCESS, {"List": "x"}, event.get("PhysicalResourceId") if event["RequestType"] == "Delete" else properties["Id"])
  Thing:
    Type: AWS::CloudFormation::CustomResource
    DependsOn: Said
    Properties: {ServiceToken: !GetAtt Maker.Arn, ServiceTimeout: "1", Id: !Ref Id, Do: !Ref Do, Deep: {Number: 1, Flag: false}}
Outputs:
  Ref: {Value: !Ref Thing}
  Data: {Value: !GetAtt Thing.List}
"""


def test_custom_resources_keep_to_the_protocol(stacks: Stacks, region: Any) -> None:
    def said() -> str:
        value: str = region.client("ssm").get_parameter(Name="/said")["Parameter"]["Value"]
        return value

    assert stacks.create("custom", CUSTOM, Parameters=parameters(Id="a"))["StackStatus"] == "CREATE_COMPLETE", stacks.reasons("custom")
    assert stacks.outputs("custom") == {"Ref": "a", "Data": "x"}
    # Another id in the answer to an update: the function made a new one, so the old one is deleted.
    assert stacks.update("custom", Parameters=parameters(Id="b"))["StackStatus"] == "UPDATE_COMPLETE"
    assert stacks.outputs("custom")["Ref"] == "b"
    assert said() == "- Create,,None Update,a,a Delete,a,None"
    assert stacks.update("custom", Parameters=parameters(Id="c", Do="fail"))["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert stacks.reasons("custom")["Thing"] == "Received response status [FAILED] from custom resource. Message returned: cannot"
    assert said().endswith("Update,b,b Update,b,c")
    assert stacks.update("custom", Parameters=parameters(Id="c", Do="silence"))["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert "CloudFormation did not receive a response from your Custom Resource." in stacks.reasons("custom")["Thing"]
    assert stacks.outputs("custom")["Ref"] == "b"
    assert stacks.delete("custom")["StackStatus"] == "DELETE_COMPLETE", stacks.reasons("custom")


def test_a_custom_resource_that_fails_to_be_created_is_asked_to_delete(stacks: Stacks, region: Any) -> None:
    # The parameter stays, so that it can be read what the function was asked for.
    template = CUSTOM.replace("Said: {Type", "Said: {DeletionPolicy: Retain, Type")
    for do, identifier in (("fail", "d"), ("silence", "broken-Thing-")):
        stack = stacks.create("broken", template.replace('reason="cannot"', '"d", reason="cannot"'), Parameters=parameters(Id="a", Do=do))
        assert stack["StackStatus"] == "ROLLBACK_COMPLETE", stacks.reasons("broken")
        said = region.client("ssm").get_parameter(Name="/said")["Parameter"]["Value"]
        assert said.startswith(f"- Create,,None Delete,{identifier}")
        region.client("ssm").delete_parameter(Name="/said")
        stacks.delete("broken")


# --- the process ends -------------------------------------------------------------------------------------------------------------------------


class Process:
    """localcloud as a process of its own."""

    def __init__(self, state_dir: Path, poll: Poll) -> None:
        root = Path(__file__).resolve().parents[2]
        command = [sys.executable, "-m", "localcloud", "--state-dir", str(state_dir), "--quiet"]
        self.process = subprocess.Popen(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, stderr=subprocess.DEVNULL)
        running = state_dir / "running.json"

        def url() -> str | None:
            status = json.loads(running.read_text()) if running.exists() else {}
            return str(status["endpoint_url"]) if status.get("pid") == self.process.pid else None

        self.endpoint_url: str = poll(url)

    def client(self, service: str) -> Any:
        return boto3.client(service, endpoint_url=self.endpoint_url, region_name="us-east-1")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start(state_dir: Path, poll: Poll) -> Iterator[Callable[[], Process]]:
    begun: list[Process] = []

    def begin() -> Process:
        begun.append(Process(state_dir, poll))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()


def test_after_kill_9_operations_are_ended_and_stacks_usable(start: Callable[[], Process], poll: Poll) -> None:
    process = start()
    stacks = Stacks(process)
    process.client("s3").create_bucket(Bucket="slow")
    assert stacks.create("whole", EVERYTHING)["StackStatus"] == "CREATE_COMPLETE"
    whole = observed(process, stacks.resources("whole"), "whole")
    updating = parameters(Bucket="slow", Name="updating")
    assert stacks.create("updating", SLOW, Parameters=[*updating, *parameters(Do="no")])["StackStatus"] == "CREATE_COMPLETE"
    before = stacks.resources("updating")
    stacks.client.update_stack(StackName="updating", TemplateBody=SLOW, Capabilities=CAPABILITIES, Parameters=updating)
    creating = parameters(Bucket="slow", Name="creating")
    stacks.client.create_stack(StackName="creating", TemplateBody=SLOW, Capabilities=CAPABILITIES, Parameters=creating)

    def at_slow(stack: str, status: str) -> bool:
        found = stacks.client.describe_stack_resources(StackName=stack)["StackResources"]
        return any(r["LogicalResourceId"] == "Slow" and r["ResourceStatus"] == status for r in found)

    poll(lambda: at_slow("updating", "UPDATE_IN_PROGRESS") and at_slow("creating", "CREATE_IN_PROGRESS"))
    process.kill()

    process = start()
    stacks = Stacks(process)
    assert stacks.settled("whole")["StackStatus"] == "CREATE_COMPLETE"
    again = observed(process, stacks.resources("whole"), "whole")
    for part, seen in whole.items():
        assert again[part] == seen, part
    assert stacks.settled("updating")["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert stacks.resources("updating") == before
    assert "localcloud was stopped while this was in progress" in stacks.reasons("updating")["Slow"]
    assert stacks.settled("creating")["StackStatus"] == "ROLLBACK_COMPLETE", stacks.reasons("creating")
    topics = json.dumps(process.client("sns").list_topics()["Topics"])
    assert "creating" not in topics
    assert "updating" in topics
    changed = stacks.update("updating", Parameters=[*updating, *parameters(Do="nothing more")])
    assert changed["StackStatus"] == "UPDATE_COMPLETE", stacks.reasons("updating")
    for name in ("whole", "updating", "creating"):
        assert stacks.delete(name)["StackStatus"] == "DELETE_COMPLETE", stacks.reasons(name)
    assert process.client("sqs").list_queues().get("QueueUrls", []) == []
    assert process.client("iam").list_roles()["Roles"] == []
    assert process.client("lambda").list_functions()["Functions"] == []


# --- the product's templates ------------------------------------------------------------------------------------------------------------------


def test_the_platform_s_data_is_created_and_unchanged_the_second_time(stacks: Stacks, region: Any) -> None:
    template = platform_data().body()
    assert stacks.create("platform", template)["StackStatus"] == "CREATE_COMPLETE", stacks.reasons("platform")
    assert stacks.outputs("platform")["ArtifactBucketName"] == "scones-dev-123456789012-us-east-1"
    assert refused(stacks.client.update_stack, StackName="platform", TemplateBody=template, Capabilities=CAPABILITIES).endswith(
        "No updates are to be performed."
    )
    assert stacks.delete("platform")["StackStatus"] == "DELETE_COMPLETE", stacks.reasons("platform")
    # RetainExceptOnCreate: data outlives the stack.
    assert "scones-dev-123456789012-us-east-1" in [bucket["Name"] for bucket in region.client("s3").list_buckets()["Buckets"]]
