"""What deployments leave behind: what goes, what stays whatever happens, and that no failure of it is a deployment's."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from helpers_aws import ACCOUNT, REGION, AwsError, fake_client
from lambdas.deploy_inference_workflow import handler
from lambdas.deploy_inference_workflow.retirement import OutOfTimeError, Retired, Retirement

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
FUNCTIONS = ("serialize-image-data", "image-classification")
PROJECT = {"project": "scones"}
PRODUCTION = PROJECT | {"endpoint": "scones-production"}


def arn(kind: str, name: str) -> str:
    return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{kind}/{name}"


def function(name: str) -> str:
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:scones-{name}"


@dataclass
class Account:
    """Endpoints, their configurations (made an hour apart, the first first), models, and functions with their versions."""

    configs: dict[str, list[str]] = field(default_factory=dict)
    created: dict[str, datetime] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    tagged: dict[str, dict[str, str]] = field(default_factory=dict)
    endpoints: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    versions: dict[str, list[int]] = field(default_factory=dict)
    serving: dict[str, int] = field(default_factory=dict)
    protected: set[str] = field(default_factory=set)

    def config(self, name: str, tags: dict[str, str], *models: str, age: timedelta | None = None) -> None:
        self.configs[name] = list(models or (f"model-of-{name}",))
        self.created[name] = NOW - (age if age is not None else timedelta(hours=100 - len(self.configs)))
        self.tagged[arn("endpoint-config", name)] = tags
        for model in self.configs[name]:
            self.models.add(model)
            self.tagged.setdefault(arn("model", model), {key: value for key, value in tags.items() if key == "project"})

    def retirement(self, kept: int = 1, **more: Any) -> Retirement:
        sagemaker = fake_client(
            "sagemaker",
            ListEndpointConfigs=self._list_configs,
            DescribeEndpointConfig=self._describe_config,
            DeleteEndpointConfig=self._delete_config,
            ListEndpoints=lambda params: {"Endpoints": [{"EndpointName": name} for name in self.endpoints]},
            DescribeEndpoint=self._describe_endpoint,
            DescribeModel=self._describe_model,
            DeleteModel=self._delete_model,
            ListTags=lambda params: {
                "Tags": [{"Key": key, "Value": value} for key, value in self.tagged.get(params["ResourceArn"], {}).items()]
            },
        )
        functions = fake_client("lambda", ListVersionsByFunction=self._list_versions, DeleteFunction=self._delete_function)
        cloudformation = fake_client("cloudformation", DescribeStackResources=self._resources)
        return Retirement(sagemaker, functions, cloudformation, "scones", "scones-inference", kept, now=lambda: NOW, **more)

    def _list_configs(self, params: dict[str, Any]) -> dict[str, Any]:
        assert (params["SortBy"], params["SortOrder"]) == ("CreationTime", "Descending")
        names = sorted(self.configs, key=lambda name: self.created[name], reverse=True)
        start = int(params.get("NextToken", 0))
        page = [
            {"EndpointConfigName": name, "EndpointConfigArn": arn("endpoint-config", name), "CreationTime": self.created[name]}
            for name in names[start : start + 2]
        ]
        return {"EndpointConfigs": page} | ({"NextToken": str(start + 2)} if start + 2 < len(names) else {})

    def _describe_config(self, params: dict[str, Any]) -> dict[str, Any]:
        name = params["EndpointConfigName"]
        if name not in self.configs:
            raise AwsError("ValidationException", f'Could not find endpoint configuration "{name}".')
        return {"ProductionVariants": [{"VariantName": model, "ModelName": model} for model in self.configs[name]]}

    def _delete_config(self, params: dict[str, Any]) -> dict[str, Any]:
        name = params["EndpointConfigName"]
        if name in self.protected:
            raise AwsError("AccessDeniedException", f"User is not authorized to delete {name}", 400)
        del self.configs[name]
        return {}

    def _describe_endpoint(self, params: dict[str, Any]) -> dict[str, Any]:
        config, pending = self.endpoints[params["EndpointName"]]
        return ({"EndpointConfigName": config} if config else {}) | (
            {"PendingDeploymentSummary": {"EndpointConfigName": pending}} if pending else {}
        )

    def _describe_model(self, params: dict[str, Any]) -> dict[str, Any]:
        if params["ModelName"] not in self.models:
            raise AwsError("ValidationException", f'Could not find model "{params["ModelName"]}".')
        return {"ModelArn": arn("model", params["ModelName"])}

    def _delete_model(self, params: dict[str, Any]) -> dict[str, Any]:
        self.models.remove(params["ModelName"])
        return {}

    def _resources(self, params: dict[str, Any]) -> dict[str, Any]:
        assert params["StackName"] == "scones-inference"
        kind = "AWS::Lambda::Version"
        found = [{"ResourceType": kind, "PhysicalResourceId": f"{function(name)}:{number}"} for name, number in self.serving.items()]
        return {
            "StackResources": [{"ResourceType": "AWS::SQS::Queue", "PhysicalResourceId": "https://queue/1"}, {"ResourceType": kind}, *found]
        }

    def _list_versions(self, params: dict[str, Any]) -> dict[str, Any]:
        numbers = self.versions[params["FunctionName"].rpartition(":scones-")[2]]
        return {"Versions": [{"Version": version} for version in ("$LATEST", *map(str, numbers))]}

    def _delete_function(self, params: dict[str, Any]) -> dict[str, Any]:
        name, _, number = params["FunctionName"].rpartition(":scones-")[2].partition(":")
        self.versions[name].remove(int(number))
        return {}


def production(*names: str) -> Account:
    """An account whose production used these configurations, one after the other, and uses the last."""
    account = Account()
    for number, name in enumerate(names):
        account.config(name, PRODUCTION | {"model-package": f"version/{number}"})
    account.endpoints["scones-production"] = (names[-1], None)
    return account


def test_what_serves_and_the_last_before_it_stay_and_older_ones_go_with_their_models() -> None:
    account = production("a", "b", "c", "d")
    retired = account.retirement(kept=2).run()
    assert retired == Retired(["a"], ["model-of-a"], [], [])
    assert set(account.configs) == {"b", "c", "d"}
    assert account.models == {"model-of-b", "model-of-c", "model-of-d"}
    assert account.retirement(kept=2).run() == Retired.nothing()


def test_a_deployment_that_begins_meanwhile_keeps_its_configuration() -> None:
    account = production("a", "b")
    account.config("next", PRODUCTION | {"model-package": "version/9"})
    assert account.retirement().run().configs == []
    account.endpoints["scones-production"] = ("b", "next")
    account.config("later", PRODUCTION | {"model-package": "version/10"})
    assert account.retirement().run().configs == []


def test_what_was_before_is_not_known_without_one_that_serves() -> None:
    account = production("a", "b", "c", "d")
    account.endpoints.clear()
    assert account.retirement().run() == Retired.nothing()


def test_whatever_an_endpoint_uses_stays_whoever_made_the_endpoint() -> None:
    account = production("a", "b", "c", "d", "e")
    account.endpoints["somebody-elses"] = ("a", None)
    account.endpoints["moving"] = (None, "b")
    # Of somebody else's configuration with a model of ours, too.
    account.config("foreign", {}, "model-of-c")
    account.endpoints["third"] = ("foreign", None)
    retired = account.retirement().run()
    assert (retired.configs, retired.models) == (["c"], [])
    assert "model-of-c" in account.models


def test_what_has_not_the_projects_tag_stays() -> None:
    account = production("a", "b", "c")
    account.config("scones-other", {})
    account.config("scones-too", {"project": "another"})
    account.config("elsewhere", PROJECT)
    account.tagged[arn("model", "model-of-a")] = {}
    retired = account.retirement().run()
    assert (retired.configs, retired.models) == (["a"], [])
    assert {"scones-other", "scones-too", "elsewhere"} <= set(account.configs)


def test_a_model_that_a_kept_configuration_shares_stays() -> None:
    account = Account()
    for name in ("a", "b", "c"):
        account.config(name, PRODUCTION, "shared", f"own-{name}")
    account.endpoints["scones-production"] = ("c", None)
    assert account.retirement().run() == Retired(["a"], ["own-a"], [], [])


def test_stagings_configurations_go_when_no_endpoint_uses_them_and_they_are_not_new() -> None:
    account = production("live")
    for number in range(5):
        account.config(f"scones-staging-{number}", PROJECT)
    account.endpoints["scones-staging"] = ("scones-staging-1", None)
    retired = account.retirement(kept=2).run()
    assert retired.configs == ["scones-staging-2", "scones-staging-0"]
    # Their endpoints may be about to begin: an execution makes the configuration first.
    for number in range(5, 9):
        account.config(f"scones-staging-{number}", PROJECT, age=timedelta(minutes=59 - number))
    account.config("scones-staging-old", PROJECT, age=timedelta(minutes=61))
    assert account.retirement(kept=1).run().configs == ["scones-staging-old", "scones-staging-4", "scones-staging-3"]


def test_versions_of_functions_before_the_one_that_serves_go_but_for_the_last() -> None:
    account = production("live")
    account.versions = {"serialize-image-data": [1, 2, 9, 10, 11], "image-classification": [4], "of-no-stack": [1, 2, 3]}
    account.serving = {"serialize-image-data": 10, "image-classification": 4}
    retired = account.retirement(kept=1).run()
    name = function("serialize-image-data")
    assert retired.functions == [f"{name}:2", f"{name}:1"]
    # 11 is of a deployment that is under way.
    assert account.versions == {"serialize-image-data": [9, 10, 11], "image-classification": [4], "of-no-stack": [1, 2, 3]}


def test_what_cannot_be_taken_away_is_told_and_the_rest_goes() -> None:
    account = production("a", "b", "c", "d")
    account.protected.add("b")
    retired = account.retirement().run()
    assert retired.configs == ["a"]
    (failure,) = retired.failures
    assert failure.startswith("b: An error occurred (AccessDeniedException)")


def test_it_ends_when_time_does() -> None:
    account = production("a", "b", "c")
    looks = iter(range(6))

    def check() -> None:
        if next(looks, None) is None:
            raise OutOfTimeError

    with pytest.raises(OutOfTimeError):
        account.retirement(check_time=check).run()
    assert len(account.configs) == 3


@given(
    tags=st.lists(st.sampled_from([PRODUCTION, PROJECT, {"project": "another"}, {}]), max_size=8),
    used=st.sets(st.integers(0, 7)),
    kept=st.integers(1, 3),
)
def test_never_what_is_used_or_not_ours(tags: list[dict[str, str]], used: set[int], kept: int) -> None:
    account = Account()
    for number, item in enumerate(tags):
        account.config(f"scones-{number}", item)
        if number in used:
            account.endpoints[f"endpoint-{number}"] = (f"scones-{number}", None)
    before = set(account.configs)
    retired = account.retirement(kept=kept).run()
    for name in retired.configs:
        number = int(name.removeprefix("scones-"))
        assert number not in used
        assert tags[number].get("project") == "scones"
    for purpose in (PRODUCTION, PROJECT):
        of_purpose = [number for number, item in enumerate(tags) if item == purpose and number not in used]
        left = [number for number in of_purpose if f"scones-{number}" in account.configs]
        assert len(left) >= min(kept, len(of_purpose))
    assert before - set(account.configs) == set(retired.configs)


# ----------------------------------------------------------------------------------------------------------- in the function


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(handler.logger.registered_handler, "stream", stream)
    return stream


def retire(monkeypatch: pytest.MonkeyPatch, account: Account, seconds_left: float = 100.0) -> None:
    retirement = account.retirement()
    monkeypatch.setattr(handler, "sagemaker", lambda: retirement.sagemaker)
    monkeypatch.setattr(handler, "functions", lambda: retirement.functions)
    monkeypatch.setattr(handler, "cloudformation", lambda: retirement.cloudformation)
    settings = handler.Settings("group", "scones-inference", "", "", {"Project": "scones"}, 1)
    handler._retire(settings, lambda: seconds_left)


def test_what_went_is_logged(monkeypatch: pytest.MonkeyPatch, log: io.StringIO) -> None:
    retire(monkeypatch, production("a", "b", "c"))
    line = json.loads(log.getvalue())
    assert (line["message"], line["configs"], line["models"]) == ("Retired versions taken away", ["a"], ["model-of-a"])


def test_no_time_is_no_failure(monkeypatch: pytest.MonkeyPatch, log: io.StringIO) -> None:
    account = production("a", "b", "c")
    retire(monkeypatch, account, seconds_left=0.0)
    assert json.loads(log.getvalue())["message"].startswith("No time is left")
    assert len(account.configs) == 3


def test_a_refusal_is_no_failure_of_the_deployment(monkeypatch: pytest.MonkeyPatch, log: io.StringIO) -> None:
    account = production("a", "b", "c")
    account.endpoints["broken"] = (None, None)

    def refuse(params: dict[str, Any]) -> dict[str, Any]:
        raise AwsError("AccessDeniedException", "User is not authorized to perform: sagemaker:DescribeEndpoint")

    monkeypatch.setattr(account, "_describe_endpoint", refuse)
    with pytest.raises(ClientError):
        account.retirement().run()
    retire(monkeypatch, account)
    line = json.loads(log.getvalue())
    assert line["level"] == "WARNING"
    assert "not authorized to perform: sagemaker:DescribeEndpoint" in line["why"]
    assert len(account.configs) == 3
