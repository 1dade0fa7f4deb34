"""The API of SageMaker Pipelines: a mixin of `localcloud.sagemaker.service.SageMakerService`."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from moto.core.utils import camelcase_to_underscores, get_service_model

from localcloud.errors import LocalCloudError, ServiceError, not_supported
from localcloud.sagemaker.base import SageMakerBase
from localcloud.sagemaker.listing import aware
from localcloud.sagemaker.pipelines import names
from localcloud.sagemaker.pipelines.definition import Definition, DefinitionError, Parameter, ParameterType, parse_definition
from localcloud.sagemaker.pipelines.engine import ACTIVE_EXECUTION, Engine, parallel_limit
from localcloud.sagemaker.pipelines.expressions import resolve, to_text
from localcloud.sagemaker.pipelines.graph import ancestors, dependencies
from localcloud.sagemaker.pipelines.host import CloudHost
from localcloud.sagemaker.pipelines.runners import convert
from localcloud.sagemaker.pipelines.store import Document, PipelineStore, now
from localcloud.sagemaker.pipelines.validation import validate
from localcloud.service import Params

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

#: How long `stop` waits for executions to let go.
_STOP_SECONDS = 5.0
_PAGE = 100
_JSON_TYPES = {ParameterType.INTEGER: '["integer"]', ParameterType.FLOAT: '["integer","number"]', ParameterType.BOOLEAN: '["boolean"]'}


class PipelineOperations(SageMakerBase):
    """Operations on pipelines and their executions."""

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self._pipelines = PipelineStore(cloud.db)
        self._pipeline_host = CloudHost(cloud, self._call)
        self._pipeline_engine = Engine(self._pipelines, self._pipeline_host)

    def start(self) -> None:
        """Mark what an earlier process left running as failed."""
        super().start()
        self._pipeline_engine.recover()

    def stop(self) -> None:
        """End every execution's threads; documents stay as they are."""
        self._pipeline_host.close()
        self._pipeline_engine.join(_STOP_SECONDS)
        super().stop()

    # Pipelines

    def create_pipeline(self, params: Params) -> Params:
        """CreatePipeline."""
        refuse_versions(params)
        name = params["PipelineName"]
        with self._pipelines.tokens.lock():
            known = self._idempotent("CreatePipeline", params)
            if known is not None:
                return {"PipelineArn": known}
            if name in self._pipelines.pipelines:
                raise ServiceError(
                    "ValidationException",
                    f"Pipeline names must be unique within an AWS account and region. Pipeline with name ({name}) already exists.",
                )
            text = self._definition_text(params)
            if text is None:
                raise ServiceError(
                    "ValidationException", "Either Pipeline Definition or Pipeline Definition S3 location should be provided"
                )
            _checked_definition(text)
            arn = self.cloud.arn("sagemaker", f"pipeline/{name}")
            self.check_role(params["RoleArn"], arn)
            self.tags.create(arn, params.get("Tags"))
            moment = now()
            self._pipelines.pipelines.put(
                name,
                {
                    "Name": name,
                    "Arn": arn,
                    "DisplayName": params.get("PipelineDisplayName", name),
                    "Description": params.get("PipelineDescription"),
                    "DefinitionDigest": self._pipelines.keep_definition(text),
                    "RoleArn": params["RoleArn"],
                    "Parallelism": params.get("ParallelismConfiguration"),
                    "CreationTime": moment,
                    "LastModifiedTime": moment,
                },
            )
            self._remember("CreatePipeline", params, arn)
        return {"PipelineArn": arn}

    def update_pipeline(self, params: Params) -> Params:
        """UpdatePipeline; running executions keep the definition with which they were started."""
        refuse_versions(params)
        pipeline = self._pipeline(params["PipelineName"])
        text = self._definition_text(params)
        changes: Document = {"LastModifiedTime": now()}
        if text is not None:
            _checked_definition(text)
            changes["DefinitionDigest"] = self._pipelines.keep_definition(text)
        if "RoleArn" in params:
            self.check_role(params["RoleArn"], pipeline["Arn"])
        for member, field in (
            ("PipelineDisplayName", "DisplayName"),
            ("PipelineDescription", "Description"),
            ("RoleArn", "RoleArn"),
            ("ParallelismConfiguration", "Parallelism"),
        ):
            if member in params:
                changes[field] = params[member]
        self._pipelines.pipelines.update(pipeline["Name"], **changes)
        return {"PipelineArn": pipeline["Arn"]}

    def delete_pipeline(self, params: Params) -> Params:
        """DeletePipeline, with all of its executions; refused while one runs."""
        pipeline = self._pipeline(params["PipelineName"])
        with self._pipelines.executions.lock():
            running = [
                execution["Arn"] for execution in self._pipelines.executions_of(pipeline["Name"]) if execution["Status"] in ACTIVE_EXECUTION
            ]
            if running:
                raise ServiceError(
                    "ConflictException", f"Pipeline {pipeline['Name']} has running executions and cannot be deleted: {', '.join(running)}"
                )
            self._pipelines.delete_pipeline(pipeline["Name"])
        self.tags.delete(pipeline["Arn"])
        return {"PipelineArn": pipeline["Arn"]}

    def describe_pipeline(self, params: Params) -> Params:
        """DescribePipeline."""
        refuse_versions(params)
        pipeline = self._pipeline(params["PipelineName"])
        answer = {
            "PipelineArn": pipeline["Arn"],
            "PipelineName": pipeline["Name"],
            "PipelineDisplayName": pipeline["DisplayName"],
            "PipelineDefinition": self._pipelines.definition(pipeline["DefinitionDigest"]),
            "PipelineDescription": pipeline.get("Description"),
            "RoleArn": pipeline["RoleArn"],
            "PipelineStatus": "Active",
            "CreationTime": pipeline["CreationTime"],
            "LastModifiedTime": pipeline["LastModifiedTime"],
            "LastRunTime": pipeline.get("LastRunTime"),
            "CreatedBy": {},
            "LastModifiedBy": {},
            "ParallelismConfiguration": pipeline.get("Parallelism"),
        }
        return _given(answer)

    def list_pipelines(self, params: Params) -> Params:
        """ListPipelines."""
        if params.get("ManagedBy", "CUSTOMER") != "CUSTOMER":
            raise not_supported("ListPipelines of pipelines that AWS manages")
        found = [
            pipeline
            for pipeline in self._pipelines.pipelines.values()
            if pipeline["Name"].startswith(params.get("PipelineNamePrefix", "")) and _created_between(pipeline, params)
        ]
        by = "Name" if params.get("SortBy") == "Name" else "CreationTime"
        _sort(found, by, params.get("SortOrder", "Descending"))
        page, rest = _page(found, params)
        summaries = [
            {
                "PipelineArn": pipeline["Arn"],
                "PipelineName": pipeline["Name"],
                "PipelineDisplayName": pipeline["DisplayName"],
                "PipelineDescription": pipeline.get("Description"),
                "RoleArn": pipeline["RoleArn"],
                "CreationTime": pipeline["CreationTime"],
                "LastModifiedTime": pipeline["LastModifiedTime"],
                "LastExecutionTime": pipeline.get("LastRunTime"),
            }
            for pipeline in page
        ]
        return {"PipelineSummaries": [_given(summary) for summary in summaries], **rest}

    # Executions

    def start_pipeline_execution(self, params: Params) -> Params:
        """StartPipelineExecution."""
        refuse_versions(params)
        if "MlflowExperimentName" in params:
            raise not_supported("StartPipelineExecution: MlflowExperimentName")
        with self._pipelines.tokens.lock():
            known = self._idempotent("StartPipelineExecution", params)
            if known is not None:
                return {"PipelineExecutionArn": known}
            pipeline = self._pipeline(params["PipelineName"])
            definition = parse_definition(self._pipelines.definition(pipeline["DefinitionDigest"]))
            values, listed = _parameter_values(definition, params.get("PipelineParameters", []))
            if "RoleArn" in params:
                self.check_role(params["RoleArn"], pipeline["Arn"])
            identifier = names.execution_id()
            moment = now()
            execution: Document = {
                "Arn": f"{pipeline['Arn']}/execution/{identifier}",
                "Id": identifier,
                "PipelineName": pipeline["Name"],
                "PipelineArn": pipeline["Arn"],
                "DisplayName": params.get("PipelineExecutionDisplayName", f"execution-{int(moment.timestamp() * 1000)}"),
                "Description": params.get("PipelineExecutionDescription"),
                "Status": "Executing",
                "CreationTime": moment,
                "LastModifiedTime": moment,
                "Parameters": values,
                "ListedParameters": listed,
                "Parallelism": params.get("ParallelismConfiguration", pipeline.get("Parallelism")),
                "DefinitionDigest": pipeline["DefinitionDigest"],
                "RoleArn": params.get("RoleArn", pipeline["RoleArn"]),
            }
            execution["Experiment"] = _experiment(definition, execution)
            reused = self._select(definition, execution, params.get("SelectiveExecutionConfig"))
            # The steps first: an execution that exists has all that it starts with.
            for step in reused:
                self._pipelines.put_step(step)
            self._pipelines.executions.put(execution["Arn"], execution)
            self._pipelines.pipelines.update(pipeline["Name"], LastRunTime=moment)
            self._remember("StartPipelineExecution", params, execution["Arn"])
        self._pipeline_engine.start(execution)
        return {"PipelineExecutionArn": execution["Arn"]}

    def describe_pipeline_execution(self, params: Params) -> Params:
        """DescribePipelineExecution."""
        execution = self._execution(params["PipelineExecutionArn"])
        answer = {
            "PipelineArn": execution["PipelineArn"],
            "PipelineExecutionArn": execution["Arn"],
            "PipelineExecutionDisplayName": execution["DisplayName"],
            "PipelineExecutionStatus": execution["Status"],
            "PipelineExecutionDescription": execution.get("Description"),
            "PipelineExperimentConfig": execution.get("Experiment"),
            "FailureReason": execution.get("FailureReason"),
            "CreationTime": execution["CreationTime"],
            "LastModifiedTime": execution["LastModifiedTime"],
            "CreatedBy": {},
            "LastModifiedBy": {},
            "ParallelismConfiguration": execution.get("Parallelism"),
            "SelectiveExecutionConfig": execution.get("Selective"),
            "RoleArn": execution["RoleArn"],
        }
        return _given(answer)

    def list_pipeline_executions(self, params: Params) -> Params:
        """ListPipelineExecutions."""
        refuse_versions(params)
        pipeline = self._pipeline(params["PipelineName"])
        found = [execution for execution in self._pipelines.executions_of(pipeline["Name"]) if _created_between(execution, params)]
        by = "Arn" if params.get("SortBy") == "PipelineExecutionArn" else "CreationTime"
        _sort(found, by, params.get("SortOrder", "Descending"))
        page, rest = _page(found, params)
        summaries = [
            {
                "PipelineExecutionArn": execution["Arn"],
                "StartTime": execution["CreationTime"],
                "PipelineExecutionStatus": execution["Status"],
                "PipelineExecutionDescription": execution.get("Description"),
                "PipelineExecutionDisplayName": execution["DisplayName"],
                "PipelineExecutionFailureReason": execution.get("FailureReason"),
            }
            for execution in page
        ]
        return {"PipelineExecutionSummaries": [_given(summary) for summary in summaries], **rest}

    def list_pipeline_execution_steps(self, params: Params) -> Params:
        """ListPipelineExecutionSteps: the steps that have started, the newest first unless SortOrder says otherwise."""
        if "PipelineExecutionArn" not in params:
            raise ServiceError("ValidationException", "PipelineExecutionArn must be provided.")
        execution = self._execution(params["PipelineExecutionArn"])
        definition = parse_definition(self._pipelines.definition(execution["DefinitionDigest"]))
        steps = self._pipelines.steps_of(execution["PipelineName"], execution["Id"])
        if params.get("SortOrder", "Descending") == "Descending":
            steps.reverse()
        page, rest = _page(steps, params)
        return {"PipelineExecutionSteps": [_listed_step(step, definition) for step in page], **rest}

    def list_pipeline_parameters_for_execution(self, params: Params) -> Params:
        """ListPipelineParametersForExecution."""
        execution = self._execution(params["PipelineExecutionArn"])
        page, rest = _page(execution["ListedParameters"], params)
        return {"PipelineParameters": page, **rest}

    def describe_pipeline_definition_for_execution(self, params: Params) -> Params:
        """DescribePipelineDefinitionForExecution."""
        execution = self._execution(params["PipelineExecutionArn"])
        return {"PipelineDefinition": self._pipelines.definition(execution["DefinitionDigest"]), "CreationTime": execution["CreationTime"]}

    def update_pipeline_execution(self, params: Params) -> Params:
        """UpdatePipelineExecution."""
        with self._pipelines.executions.lock():
            execution = self._execution(params["PipelineExecutionArn"])
            changes: Document = {"LastModifiedTime": now()}
            for member, field in (
                ("PipelineExecutionDisplayName", "DisplayName"),
                ("PipelineExecutionDescription", "Description"),
                ("ParallelismConfiguration", "Parallelism"),
            ):
                if member in params:
                    changes[field] = params[member]
            updated = self._pipelines.executions.update(execution["Arn"], **changes)
        self._pipeline_engine.set_limit(execution["Arn"], parallel_limit(updated))
        return {"PipelineExecutionArn": execution["Arn"]}

    def stop_pipeline_execution(self, params: Params) -> Params:
        """StopPipelineExecution."""
        stopping: Document | None = None
        with self._pipelines.executions.lock():
            execution = self._execution(params["PipelineExecutionArn"])
            if execution["Status"] == "Executing":
                stopping = self._pipelines.executions.update(execution["Arn"], Status="Stopping", LastModifiedTime=now())
                self._remember("StopPipelineExecution", params, execution["Arn"])
            elif self._idempotent("StopPipelineExecution", params) is None:
                raise ServiceError(
                    "ValidationException",
                    f"Only pipelines with 'Executing' status can be stopped; the status of {execution['Arn']} is '{execution['Status']}'.",
                )
        if stopping is not None:
            self._pipeline_engine.reporter.execution(stopping, "Executing")
            self._pipeline_engine.stop(execution["Arn"])
        return {"PipelineExecutionArn": execution["Arn"]}

    def retry_pipeline_execution(self, params: Params) -> Params:
        """RetryPipelineExecution: what failed or was stopped runs again, what succeeded stays."""
        with self._pipelines.executions.lock():
            known = self._idempotent("RetryPipelineExecution", params)
            if known is not None:
                return {"PipelineExecutionArn": known}
            execution = self._execution(params["PipelineExecutionArn"])
            previous = execution["Status"]
            if previous not in ("Failed", "Stopped"):
                raise ServiceError(
                    "ValidationException",
                    f"Only pipelines with 'Failed' or 'Stopped' status can be retried; the status of {execution['Arn']} is '{previous}'.",
                )
            execution = {key: value for key, value in execution.items() if key not in ("FailureReason", "EndTime")}
            execution |= {"Status": "Executing", "LastModifiedTime": now()}
            if "ParallelismConfiguration" in params:
                execution["Parallelism"] = params["ParallelismConfiguration"]
            self._pipelines.executions.put(execution["Arn"], execution)
            self._remember("RetryPipelineExecution", params, execution["Arn"])
        self._pipeline_engine.start(execution, previous)
        return {"PipelineExecutionArn": execution["Arn"]}

    def send_pipeline_execution_step_success(self, params: Params) -> Params:
        """SendPipelineExecutionStepSuccess."""
        values = {output["Name"]: output["Value"] for output in params.get("OutputParameters", [])}
        arn = self._pipeline_engine.callbacks.succeed(params["CallbackToken"], values)
        self._pipeline_host.announce()
        return {"PipelineExecutionArn": arn}

    def send_pipeline_execution_step_failure(self, params: Params) -> Params:
        """SendPipelineExecutionStepFailure."""
        arn = self._pipeline_engine.callbacks.fail(params["CallbackToken"], params.get("FailureReason", ""))
        self._pipeline_host.announce()
        return {"PipelineExecutionArn": arn}

    # Helpers

    def _call(self, operation: str, params: Params) -> Params:
        """Call one of the service's own operations with the checks that an HTTP request gets."""
        method = getattr(self, camelcase_to_underscores(operation), None)
        if method is None:
            raise not_supported(f"sagemaker:{operation}")
        self._validate(get_service_model(self.name).operation_model(operation), params)
        answer: Params = method(params) or {}
        return answer

    def _pipeline(self, name_or_arn: str) -> Document:
        name = name_or_arn.rpartition("/")[2]
        found = self._pipelines.pipelines.get(name)
        if found is None:
            arn = self.cloud.arn("sagemaker", f"pipeline/{name}")
            raise ServiceError("ResourceNotFound", f"Pipeline '{arn}' does not exist.")
        return found

    def _execution(self, arn: str) -> Document:
        found = self._pipelines.executions.get(arn)
        if found is None:
            raise ServiceError("ResourceNotFound", f"Pipeline execution with ARN {arn} does not exist.")
        return found

    def _definition_text(self, params: Params) -> str | None:
        location = params.get("PipelineDefinitionS3Location")
        if location is None:
            return params.get("PipelineDefinition")
        if "PipelineDefinition" in params:
            raise ServiceError("ValidationException", "Both Pipeline Definition and Pipeline Definition S3 Location shouldn't be present")
        if "VersionId" in location:
            raise not_supported("PipelineDefinitionS3Location: VersionId")
        uri = f"s3://{location['Bucket']}/{location['ObjectKey']}"
        try:
            return self.cloud.objects.read(uri).decode()
        except (LocalCloudError, UnicodeDecodeError) as error:
            raise ServiceError("ValidationException", f"Unable to get the pipeline definition from {uri}: {error}") from error

    def _select(self, definition: Definition, execution: Document, config: Params | None) -> list[Document]:
        """Prepare a selective execution: set what it runs, return the steps that it takes from its source."""
        if config is None:
            return []
        selected = [step["StepName"] for step in config["SelectedSteps"]]
        unknown = sorted(set(selected) - set(definition.steps))
        if unknown:
            raise ServiceError("ValidationException", f"Invalid SelectedSteps: the pipeline has no step [{', '.join(unknown)}]")
        graph = dependencies(definition)
        needed = [name for name in definition.steps if name in ancestors(graph, selected) and name not in selected]
        between = [name for name in needed if ancestors(graph, [name]) & set(selected)]
        if between:
            raise ServiceError(
                "ValidationException",
                f"Invalid SelectedSteps: steps between two selected steps must be selected, too: [{', '.join(between)}]",
            )
        source = config.get("SourcePipelineExecutionArn")
        if needed and source is None:
            raise ServiceError(
                "ValidationException",
                f"Invalid SourcePipelineExecutionArn: null. The selected steps [{', '.join(selected)}] have dependencies on [{', '.join(needed)}]",
            )
        execution |= {"SelectedSteps": selected, "Selective": config}
        if source is None:
            return []
        earlier = self._execution(source)
        if earlier["PipelineName"] != execution["PipelineName"] or earlier["Status"] in ACTIVE_EXECUTION:
            raise ServiceError(
                "ValidationException", f"Invalid SourcePipelineExecutionArn: {source} is not an ended execution of this pipeline"
            )
        reused = []
        for order, name in enumerate(needed, 1):
            step = self._pipelines.step(earlier["PipelineName"], earlier["Id"], name)
            if step is None or step["Status"] != "Succeeded":
                raise ServiceError("ValidationException", f"Invalid SourcePipelineExecutionArn: step [{name}] did not succeed in {source}")
            reused.append(step | {"Execution": execution["Arn"], "ExecutionId": execution["Id"], "Order": order, "SelectiveSource": source})
        return reused

    def _idempotent(self, operation: str, params: Params) -> str | None:
        """Return the ARN that an earlier request with the same token got, None when there was none.

        Raises:
            ServiceError: The token was used for another request.
        """
        token = params.get("ClientRequestToken")
        known = self._pipelines.tokens.get(f"{operation}:{token}") if token else None
        if known is None:
            return None
        if known["Digest"] != _request_digest(params):
            raise ServiceError("ConflictException", f"The ClientRequestToken {token} was used for a different {operation} request.")
        arn: str = known["Arn"]
        return arn if arn in self._pipelines.executions or self._arn_of_pipeline(arn) else None

    def _arn_of_pipeline(self, arn: str) -> bool:
        return arn.rpartition("/")[2] in self._pipelines.pipelines

    def _remember(self, operation: str, params: Params, arn: str) -> None:
        token = params.get("ClientRequestToken")
        if token:
            self._pipelines.tokens.put(f"{operation}:{token}", {"Arn": arn, "Digest": _request_digest(params)})


def refuse_versions(params: Mapping[str, Any]) -> None:
    """Refuse requests about versions of pipelines."""
    for member in ("PipelineVersionId", "PipelineVersionAlias", "PipelineVersionAliases"):
        if params.get(member):
            raise not_supported(f"{member} (versions of pipelines)")


def _checked_definition(text: str) -> None:
    try:
        validate(parse_definition(text))
    except DefinitionError as error:
        raise ServiceError("ValidationException", str(error)) from error


def _parameter_values(definition: Definition, given: Iterable[Mapping[str, str]]) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Return the execution's parameters with their types, and as ListPipelineParametersForExecution lists them.

    AWS holds them against a JSON schema; the words in brackets are that validator's.

    Raises:
        ServiceError: One is unknown, given twice, missing, of another type or not among the EnumValues.
    """
    texts: dict[str, str] = {}
    for item in given:
        if item["Name"] in texts:
            raise ServiceError("ValidationException", f"Pipeline parameter '{item['Name']}' is given more than once.")
        texts[item["Name"]] = item["Value"]
    unknown = sorted(set(texts) - set(definition.parameters))
    if unknown:
        known = ", ".join(definition.parameters) or "none"
        raise ServiceError(
            "ValidationException",
            f"[object instance has properties which are not allowed by the schema: {json.dumps(unknown)}] The pipeline's parameters are: {known}.",
        )
    missing = [name for name, parameter in definition.parameters.items() if parameter.default is None and name not in texts]
    if missing:
        raise ServiceError("ValidationException", f"[object has missing required properties ({json.dumps(missing)})]")
    values = {
        name: _parameter_value(parameter, texts[name]) if name in texts else convert(parameter.default, parameter.type)
        for name, parameter in definition.parameters.items()
    }
    return values, [{"Name": name, "Value": texts.get(name, to_text(value))} for name, value in values.items()]


def _parameter_value(parameter: Parameter, text: str) -> Any:
    fault: str | None = None
    value = convert(text, parameter.type)
    if value is None:
        fault = f"instance type (string) does not match any allowed primitive type (allowed: {_JSON_TYPES[parameter.type]})"
    elif parameter.allowed and text not in parameter.allowed:
        fault = f"instance value ({json.dumps(text)}) not found in enum (possible values: {json.dumps(list(parameter.allowed))})"
    elif text == "":
        fault = 'string "" is too short (length: 0, required minimum: 1)'
    if fault is not None:
        raise ServiceError(
            "ValidationException", f"[{fault}] Pipeline parameter '{parameter.name}' of type {parameter.type} cannot be '{text}'."
        )
    return value


class _StartScope:
    """What PipelineExperimentConfig can see."""

    def __init__(self, execution: Document) -> None:
        self._execution = execution

    def parameter(self, name: str) -> Any:
        return self._execution["Parameters"][name]

    def execution_variable(self, name: str) -> str:
        members = {"PipelineExecutionId": "Id", "PipelineExecutionArn": "Arn", "PipelineName": "PipelineName", "PipelineArn": "PipelineArn"}
        return str(self._execution[members[name]]) if name in members else to_text(self._execution["CreationTime"])

    def step_properties(self, step: str) -> Mapping[str, Any]:
        raise NotImplementedError  # refused when the definition is checked

    property_file = json_object = step_properties


def _experiment(definition: Definition, execution: Document) -> Any:
    return None if definition.experiment is None else resolve(dict(definition.experiment), _StartScope(execution))  # type: ignore[arg-type]


def _listed_step(step: Document, definition: Definition) -> Params:
    declared = definition.steps[step["Name"]]
    answer = {
        "StepName": step["Name"],
        "StepDisplayName": declared.display_name,
        "StepDescription": declared.description,
        "StartTime": step["StartTime"],
        "EndTime": step.get("EndTime"),
        "StepStatus": step["Status"],
        "CacheHitResult": {"SourcePipelineExecutionArn": step["CacheHit"]} if "CacheHit" in step else None,
        "FailureReason": step.get("FailureReason"),
        "Metadata": step["Metadata"],
        "AttemptCount": step["AttemptCount"],
        "SelectiveExecutionResult": {"SourcePipelineExecutionArn": step["SelectiveSource"]} if "SelectiveSource" in step else None,
    }
    return _given(answer)


def _given(answer: Params) -> Params:
    return {member: value for member, value in answer.items() if value is not None}


def _created_between(document: Document, params: Params) -> bool:
    after, before = params.get("CreatedAfter"), params.get("CreatedBefore")
    created = document["CreationTime"]
    return (after is None or created > aware(after)) and (before is None or created < aware(before))


def _sort(documents: list[Document], by: str, order: str) -> None:
    documents.sort(key=lambda document: document[by], reverse=order == "Descending")


def _page(items: list[Any], params: Params) -> tuple[list[Any], Params]:
    """Return one page and the response's NextToken (nothing on the last page)."""
    start = 0
    if params.get("NextToken"):
        try:
            start = int(base64.urlsafe_b64decode(params["NextToken"].encode()).decode())
        except (binascii.Error, UnicodeError, ValueError):
            start = -1
        if not 0 < start <= len(items):
            raise ServiceError("ValidationException", "Invalid pagination token given.")
    end = start + params.get("MaxResults", _PAGE)
    rest = {"NextToken": base64.urlsafe_b64encode(str(end).encode()).decode()} if end < len(items) else {}
    return items[start:end], rest


def _request_digest(params: Params) -> str:
    body = {member: value for member, value in params.items() if member != "ClientRequestToken"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).hexdigest()
