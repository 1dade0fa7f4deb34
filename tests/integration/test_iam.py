"""What a role may not do is refused, wherever the role got its credentials; what it did can be looked up."""

from __future__ import annotations

import json
import urllib.request
from datetime import timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import WaiterError
from moto.sts.models import sts_backends

from helpers_assumed import ACCOUNT, Roles, allow, refused
from helpers_functions import Lab as Functions
from helpers_sagemaker import BUCKET, IMAGE, Lab
from localcloud.iam.needs import Need
from localcloud.iam.principals import RoleSession

#: What every container needs: to be pulled, and to log.
CONTAINER = [
    {"Effect": "Allow", "Action": ["ecr:*", "logs:*"], "Resource": "*"},
    {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": ["arn:aws:s3:::*"]},
]


@pytest.fixture(scope="module")
def lab(region: Any) -> Lab:
    return Lab(region)


@pytest.fixture(scope="module")
def functions(region: Any, lab: Lab) -> Functions:
    return Functions(region)


@pytest.fixture(scope="module")
def roles(region: Any) -> Roles:
    return Roles(region)


def test_a_role_from_sts_may_do_what_its_policy_allows_and_no_more(lab: Lab, roles: Roles) -> None:
    lab.put("open/a.txt", "a")
    lab.put("closed/b.txt", "b")
    role = roles.make(allow("s3:GetObject", on=f"arn:aws:s3:::{BUCKET}/open/*"))
    s3 = roles.client(role, "s3")
    assert s3.get_object(Bucket=BUCKET, Key="open/a.txt")["Body"].read() == b"a"
    message = refused(s3.get_object, "AccessDenied", Bucket=BUCKET, Key="closed/b.txt")
    assert message == (
        f"User: arn:aws:sts::{ACCOUNT}:assumed-role/{role.rpartition('/')[2]}/me is not authorized to perform: s3:GetObject on resource: "
        f"arn:aws:s3:::{BUCKET}/closed/b.txt because no identity-based policy allows the s3:GetObject action"
    )
    refused(s3.put_object, "AccessDenied", Bucket=BUCKET, Key="open/a.txt", Body=b"x")
    assert lab.s3.get_object(Bucket=BUCKET, Key="open/a.txt")["Body"].read() == b"a"
    refused(s3.list_objects_v2, "AccessDenied", Bucket=BUCKET)
    refused(roles.client(role, "sagemaker").list_endpoints, "AccessDeniedException")
    refused(roles.client(role, "iam").list_roles, "AccessDenied")


def test_a_presigned_address_is_its_signers(lab: Lab, roles: Roles) -> None:
    lab.put("presigned.txt", "p")
    address = {"Bucket": BUCKET, "Key": "presigned.txt"}
    allowed = roles.client(roles.make(allow("s3:GetObject")), "s3").generate_presigned_url("get_object", address)
    denied = roles.client(roles.make(allow("s3:PutObject")), "s3").generate_presigned_url("get_object", address)
    assert urllib.request.urlopen(allowed).read() == b"p"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(denied)


def test_a_body_reaches_the_service_after_it_was_looked_at(lab: Lab, roles: Roles) -> None:
    s3 = roles.client(roles.make(allow("s3:*")), "s3")
    big = b"x" * (9 * 1024 * 1024)
    s3.put_object(Bucket=BUCKET, Key="big", Body=big)
    assert lab.s3.get_object(Bucket=BUCKET, Key="big")["Body"].read() == big
    s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "big"}]})
    assert "big" not in lab.objects("")


def trust(principal: Any, **condition: Any) -> str:
    statement: dict[str, Any] = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": statement | ({"Condition": condition} if condition else {})})


def test_only_whom_a_role_trusts_may_assume_it(region: Any, roles: Roles) -> None:
    iam, sts = region.client("iam"), region.client("sts")
    asking = roles.make(allow("sts:AssumeRole"))
    for_functions = iam.create_role(RoleName="for-functions", AssumeRolePolicyDocument=trust({"Service": "lambda.amazonaws.com"}))["Role"][
        "Arn"
    ]
    for_one = iam.create_role(RoleName="for-one", AssumeRolePolicyDocument=trust({"AWS": asking}))["Role"]["Arn"]
    condition = {"StringEquals": {"sts:ExternalId": "secret"}}
    with_id = iam.create_role(RoleName="with-id", AssumeRolePolicyDocument=trust({"AWS": ACCOUNT}, **condition))["Role"]["Arn"]
    for client in (sts, roles.client(asking, "sts")):
        for role in (for_functions, with_id, f"{for_functions}-that-is-not-there"):
            assert f"sts:AssumeRole on resource: {role}" in refused(client.assume_role, "AccessDenied", RoleArn=role, RoleSessionName="me")
        client.assume_role(RoleArn=with_id, RoleSessionName="me", ExternalId="secret")
    # The role's own name in the other's trust policy is enough; the account's hands the decision to the role's own policies.
    powerless = roles.make(allow("s3:GetObject"))
    iam.update_assume_role_policy(RoleName="for-one", PolicyDocument=trust({"AWS": [asking, powerless]}))
    for role in (asking, powerless):
        roles.client(role, "sts").assume_role(RoleArn=for_one, RoleSessionName="me")
    refused(roles.client(powerless, "sts").assume_role, "AccessDenied", RoleArn=with_id, RoleSessionName="me", ExternalId="secret")
    refused(sts.assume_role, "AccessDenied", RoleArn=for_one, RoleSessionName="me")


def test_a_role_cannot_become_the_administrator_at_sts(region: Any, roles: Roles) -> None:
    role = roles.make(allow("sts:*"))
    sts = roles.client(role, "sts")
    assert "session credentials" in refused(sts.get_session_token, "AccessDenied")
    assert "session credentials" in refused(sts.get_federation_token, "AccessDenied", Name="me")
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow("s3:GetObject")]})
    admin = region.client("sts")
    assert "not supported by localcloud" in refused(
        admin.assume_role, "ValidationException", RoleArn=role, RoleSessionName="me", Policy=policy
    )
    federated = {"RoleArn": role, "RoleSessionName": "me", "WebIdentityToken": "t" * 8}
    assert "not supported by localcloud" in refused(admin.assume_role_with_web_identity, "ValidationException", **federated)


def with_token(region: Any, service: str, token: str, key: str = "ASIALOCALCLOUD000000") -> Any:
    return boto3.client(
        service,
        endpoint_url=region.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key="s",
        aws_session_token=token,
    )


def test_who_asks_is_told_who_he_is(region: Any, roles: Roles) -> None:
    role = roles.make(allow("s3:GetObject"))
    expected = f"arn:aws:sts::{ACCOUNT}:assumed-role/{role.rpartition('/')[2]}/me"
    assert roles.client(role, "sts").get_caller_identity()["Arn"] == expected
    assert with_token(region, "sts", f"{role}|me").get_caller_identity()["Arn"] == expected


def test_credentials_of_a_role_that_are_good_no_more_are_nobodys(region: Any, roles: Roles) -> None:
    given = region.client("sts").assume_role(RoleArn=roles.make(allow("s3:*")), RoleSessionName="me")["Credentials"]
    s3 = with_token(region, "s3", given["SessionToken"], given["AccessKeyId"])
    s3.list_buckets()
    sessions = sts_backends[ACCOUNT]["aws"].assumed_roles
    session = next(session for session in sessions if session.access_key_id == given["AccessKeyId"])
    session.expiration -= timedelta(hours=13)
    refused(s3.list_buckets, "ExpiredToken")
    sessions.remove(session)
    refused(s3.list_buckets, "InvalidClientTokenId")
    refused(with_token(region, "s3", "|").list_buckets, "InvalidClientTokenId")


def test_an_alias_stands_for_its_key(region: Any, roles: Roles) -> None:
    key = region.client("kms").create_key()["KeyMetadata"]
    region.client("kms").create_alias(AliasName="alias/mine", TargetKeyId=key["KeyId"])
    kms = roles.client(roles.make(allow("kms:Encrypt", on=key["Arn"])), "kms")
    for name in (key["KeyId"], key["Arn"], "alias/mine", f"arn:aws:kms:us-east-1:{ACCOUNT}:alias/mine"):
        kms.encrypt(KeyId=name, Plaintext=b"x")
    assert f"on resource: {key['Arn']} because" in refused(kms.decrypt, "AccessDeniedException", KeyId="alias/mine", CiphertextBlob=b"x")
    refused(kms.encrypt, "AccessDeniedException", KeyId="alias/none", Plaintext=b"x")


def test_the_permissions_boundary_and_a_resources_deny_come_first(region: Any, lab: Lab, roles: Roles) -> None:
    lab.put("bounded.txt", "b")
    iam = region.client("iam")
    boundary = iam.create_policy(
        PolicyName="boundary", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allow("s3:ListBucket")]})
    )
    role = roles.make(allow("s3:*"), PermissionsBoundary=boundary["Policy"]["Arn"])
    s3 = roles.client(role, "s3")
    s3.list_objects_v2(Bucket=BUCKET)
    assert "because no permissions boundary allows" in refused(s3.get_object, "AccessDenied", Bucket=BUCKET, Key="bounded.txt")
    s3 = roles.client(roles.make(allow("s3:*")), "s3")
    region.client("s3").create_bucket(Bucket="shut")
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::shut/*"}
    policy = {
        "Version": "2012-10-17",
        "Statement": [{**deny, "Condition": {"StringNotEquals": {"s3:x-amz-server-side-encryption": "AES256"}}}],
    }
    region.client("s3").put_bucket_policy(Bucket="shut", Policy=json.dumps(policy))
    assert "explicit deny in a resource-based policy" in refused(s3.put_object, "AccessDenied", Bucket="shut", Key="k", Body=b"")
    s3.put_object(Bucket="shut", Key="k", Body=b"", ServerSideEncryption="AES256")


def test_a_function_has_its_roles_permissions_and_not_one_more(functions: Functions, lab: Lab, roles: Roles) -> None:
    lab.put("photo.txt", "p")
    code = f"import boto3\ndef handler(event, context):\n    return boto3.client('s3').get_object(Bucket={BUCKET!r}, Key='photo.txt')['Body'].read().decode()"
    role = roles.make(allow("logs:*"), allow("s3:GetObject", on=f"arn:aws:s3:::{BUCKET}/photo.txt"))
    function = functions.function(code, Role=role)
    assert functions.invoke(function)[1] == "p"
    roles.allow(role.rpartition("/")[2], allow("logs:*"))
    _, answer = functions.invoke(function)
    assert answer["errorType"] == "AccessDenied"
    assert f"assumed-role/{role.rpartition('/')[2]}/{function} is not authorized to perform: s3:GetObject" in answer["errorMessage"]


def test_a_function_whose_role_may_not_log_has_no_log(functions: Functions, roles: Roles) -> None:
    function = functions.function("def handler(event, context): return 1", Role=roles.make(allow("s3:*")))
    assert functions.invoke(function)[1] == 1
    heard = functions.function("def handler(event, context): return 1")
    functions.invoke(heard)
    functions.poll(lambda: functions.log_lines(f"/aws/lambda/{heard}"))
    groups = [group["logGroupName"] for group in functions.client("logs").describe_log_groups()["logGroups"]]
    assert f"/aws/lambda/{heard}" in groups
    assert f"/aws/lambda/{function}" not in groups


def test_a_job_reads_and_writes_s3_as_its_role(lab: Lab, roles: Roles) -> None:
    code = "import pathlib, sys\npathlib.Path(sys.argv[1], 'x').touch()"
    reader = roles.make(*CONTAINER)
    job = lab.process(code, RoleArn=reader)
    assert job["ProcessingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError: Data upload failed: User: ")
    assert "is not authorized to perform: s3:PutObject" in job["FailureReason"]
    assert lab.process(code, RoleArn=roles.make(*CONTAINER, allow("s3:PutObject")))["ProcessingJobStatus"] == "Completed"
    blind = lab.process(code, RoleArn=roles.make(CONTAINER[0]))
    assert blind["FailureReason"].startswith("ClientError: Data download failed: User: ")


def test_a_jobs_own_calls_are_its_roles(lab: Lab, roles: Roles) -> None:
    code = f"import boto3\nboto3.client('s3').delete_object(Bucket={BUCKET!r}, Key='anything')"
    job = lab.process(code, RoleArn=roles.make(*CONTAINER, allow("s3:PutObject")))
    assert job["ProcessingJobStatus"] == "Failed"
    lines = lab.lines("/aws/sagemaker/ProcessingJobs", job["ProcessingJobName"])
    assert any("is not authorized to perform: s3:DeleteObject" in line for line in lines)


def test_an_image_of_ecr_is_pulled_by_the_role(lab: Lab, roles: Roles) -> None:
    role = roles.make(*CONTAINER[1:], allow("s3:PutObject", "logs:*"))
    image = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/mine:1"
    specification = lab.processing_request("")["AppSpecification"] | {"ImageUri": image}
    job = lab.process("", RoleArn=role, AppSpecification=specification)
    assert job["FailureReason"].startswith(
        f"ClientError: The image '{image}' cannot be pulled: please ensure that the role {role} has ecr:GetAuthorizationToken"
    )


def test_whoever_hands_a_role_on_must_be_allowed_to(lab: Lab, roles: Roles) -> None:
    request = lab.processing_request("")
    caller = roles.make(
        allow("sagemaker:*"), allow("iam:PassRole", on=lab.role, StringEquals={"iam:PassedToService": "lambda.amazonaws.com"})
    )
    sagemaker = roles.client(caller, "sagemaker")
    message = refused(sagemaker.create_processing_job, "AccessDeniedException", **request)
    assert f"iam:PassRole on resource: {lab.role}" in message
    roles.allow(
        caller.rpartition("/")[2],
        allow("sagemaker:*"),
        allow("iam:PassRole", StringEquals={"iam:PassedToService": "sagemaker.amazonaws.com"}),
    )
    sagemaker.create_processing_job(**request)
    lab.processed(request["ProcessingJobName"])


def test_a_model_is_served_as_its_role(lab: Lab, roles: Roles) -> None:
    uri = lab.put("model/model.tar.gz", b"")
    role = roles.make(CONTAINER[0])
    lab.sm.create_model(ModelName="blind", ExecutionRoleArn=role, PrimaryContainer={"Image": IMAGE, "ModelDataUrl": uri})
    variant = {"VariantName": "v", "ModelName": "blind", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    lab.sm.create_endpoint_config(EndpointConfigName="blind", ProductionVariants=[variant])
    lab.sm.create_endpoint(EndpointName="blind", EndpointConfigName="blind")
    with pytest.raises(WaiterError, match="Failed"):
        lab.sm.get_waiter("endpoint_in_service").wait(EndpointName="blind", WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    reason = lab.sm.describe_endpoint(EndpointName="blind")["FailureReason"]
    assert "role passed to CreateModel has permissions to download the object" in reason


def test_a_workflow_calls_functions_as_its_role(functions: Functions, roles: Roles) -> None:
    function = functions.function("def handler(event, context): return 'hello'")
    arn = functions.client("lambda").get_function_configuration(FunctionName=function)["FunctionArn"]
    definition = {
        "StartAt": "A",
        "States": {"A": {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "Parameters": {"FunctionName": arn}, "End": True}},
    }
    states = functions.client("stepfunctions")

    def run(role: str) -> dict[str, Any]:
        machine = states.create_state_machine(name=functions.name("m"), definition=json.dumps(definition), roleArn=role)["stateMachineArn"]
        execution = states.start_execution(stateMachineArn=machine)["executionArn"]

        def ended() -> dict[str, Any] | None:
            described: dict[str, Any] = states.describe_execution(executionArn=execution)
            return described if described["status"] != "RUNNING" else None

        return dict(functions.poll(ended))

    assert run(roles.make(allow("lambda:InvokeFunction", on=arn)))["status"] == "SUCCEEDED"
    ended = run(roles.make(allow("lambda:InvokeFunction", on=arn + "-other")))
    assert (ended["status"], ended["error"]) == ("FAILED", "Lambda.AccessDeniedException")
    assert "is not authorized to perform: lambda:InvokeFunction" in ended["cause"]


def test_a_stack_takes_no_role_that_does_not_trust_cloudformation(region: Any, roles: Roles) -> None:
    client, iam = region.client("cloudformation"), region.client("iam")
    template = json.dumps({"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}})
    other = roles.make(allow("sqs:*"))
    iam.update_assume_role_policy(RoleName=other.rpartition("/")[2], PolicyDocument=trust({"Service": "lambda.amazonaws.com"}))
    client.create_stack(StackName="trusting", TemplateBody=template)
    client.get_waiter("stack_create_complete").wait(StackName="trusting", WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    for role in (other, f"arn:aws:iam::{ACCOUNT}:role/none"):
        for operation, request in (
            (client.create_stack, {"StackName": "untrusted", "TemplateBody": template}),
            (
                client.create_change_set,
                {"StackName": "untrusted", "ChangeSetName": "c", "ChangeSetType": "CREATE", "TemplateBody": template},
            ),
            (client.update_stack, {"StackName": "trusting", "TemplateBody": template}),
            (client.delete_stack, {"StackName": "trusting"}),
        ):
            assert "is invalid or cannot be assumed" in refused(operation, "ValidationError", RoleARN=role, **request)


def test_a_stack_is_made_as_its_role_and_else_as_who_asked(region: Any, roles: Roles) -> None:
    template = json.dumps({"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}})
    client = region.client("cloudformation")

    def events(name: str) -> str:
        return " ".join(event.get("ResourceStatusReason", "") for event in client.describe_stack_events(StackName=name)["StackEvents"])

    client.create_stack(StackName="as-role", TemplateBody=template, RoleARN=roles.make(allow("sqs:ListQueues")))
    with pytest.raises(WaiterError):
        client.get_waiter("stack_create_complete").wait(StackName="as-role", WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    assert "AWSCloudFormation is not authorized to perform: sqs:CreateQueue" in events("as-role")

    caller = roles.make(allow("cloudformation:*"))
    roles.client(caller, "cloudformation").create_stack(StackName="as-caller", TemplateBody=template)
    with pytest.raises(WaiterError):
        client.get_waiter("stack_create_complete").wait(StackName="as-caller", WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    assert f"assumed-role/{caller.rpartition('/')[2]}/me is not authorized to perform: sqs:CreateQueue" in events("as-caller")


def test_what_roles_did_can_be_looked_up(region: Any, lab: Lab, roles: Roles) -> None:
    lab.put("looked-up.txt", "x")
    role = roles.make(allow("s3:GetObject"))
    s3 = roles.client(role, "s3")
    s3.get_object(Bucket=BUCKET, Key="looked-up.txt")
    refused(s3.put_object, "AccessDenied", Bucket=BUCKET, Key="looked-up.txt", Body=b"")
    usage = json.load(urllib.request.urlopen(f"{region.endpoint_url}/_localcloud/iam/usage"))
    mine = {(entry["action"], entry["allowed"]): entry["accesses"] for entry in usage if entry["role"] == role}
    assert mine == {
        ("s3:GetObject", True): [{"resource": f"arn:aws:s3:::{BUCKET}/looked-up.txt", "keys": {}}],
        ("s3:PutObject", False): [{"resource": f"arn:aws:s3:::{BUCKET}/looked-up.txt", "keys": {}}],
    }


def test_many_accesses_in_one_place_hide_no_other_place_and_who_asked_for_whom_is_remembered(region: Any, roles: Roles) -> None:
    session = RoleSession(roles.make(allow("s3:GetObject")), "me", ("cloudformation.amazonaws.com",))
    for key in (*(f"raw/{number}" for number in range(60)), "runs/1"):
        region.cloud.iam.decide(session, Need("s3:GetObject", f"arn:aws:s3:::{BUCKET}/{key}"))
    usage = [entry for entry in region.cloud.iam.usage() if entry["role"] == session.role_arn]
    last = usage[-1]["accesses"][-1]
    assert [len(entry["accesses"]) for entry in usage] == [50, 1]
    assert (last["resource"], last["keys"]["aws:calledvia"]) == (f"arn:aws:s3:::{BUCKET}/runs/1", ["cloudformation.amazonaws.com"])


@pytest.mark.parametrize(
    "resource",
    [
        f"arn:aws:s3:::{BUCKET}/{{}}.png",
        f"arn:aws:s3:::{BUCKET}/{{}}/photo.png",
        f"arn:aws:states:us-east-1:{ACCOUNT}:execution:classify:{{}}",
        f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:training-job/pipelines-{{}}",
    ],
)
def test_what_is_remembered_does_not_grow_with_what_is_done(region: Any, roles: Roles, resource: str) -> None:
    session = RoleSession(roles.make(allow("*")), "me")
    for number in range(1200):
        region.cloud.iam.decide(session, Need("s3:GetObject", resource.format(number)))
    usage = [entry for entry in region.cloud.iam.usage() if entry["role"] == session.role_arn]
    assert len(usage) <= 21
    assert sum(len(entry["accesses"]) for entry in usage) <= 21 * 50


def test_a_role_that_is_gone_may_nothing(region: Any, roles: Roles) -> None:
    role = roles.make(allow("s3:*"))
    s3 = roles.client(role, "s3")
    name = role.rpartition("/")[2]
    region.client("iam").delete_role_policy(RoleName=name, PolicyName="p")
    region.client("iam").delete_role(RoleName=name)
    assert "because the role does not exist" in refused(s3.list_buckets, "AccessDenied")
