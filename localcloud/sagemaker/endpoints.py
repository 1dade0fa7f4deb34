"""Endpoints: what served before serves until the new servers answer /ping and traffic has shifted to them, and goes on when that fails."""

from __future__ import annotations

import enum
import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from localcloud.database import Document
from localcloud.errors import ServiceError, not_supported
from localcloud.iam.principals import RoleSession
from localcloud.sagemaker.endpoint_configs import EndpointConfigOperations
from localcloud.sagemaker.fleet import Fleet, LiveVariant, start_all
from localcloud.sagemaker.listing import list_page
from localcloud.sagemaker.rollout import Interrupted, Rollout, VariantStatus
from localcloud.sagemaker.servers import STARTUP_SECONDS, Container, DeploymentError, ModelServer
from localcloud.sagemaker.shifting import Plan, plan
from localcloud.sagemaker.tags import check_tags
from localcloud.sagemaker.values import SESSION_NAME, given, now, refuse_others
from localcloud.service import Params

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

log = logging.getLogger(__name__)


class EndpointStatus(enum.StrEnum):
    """An endpoint's status."""

    CREATING = "Creating"
    UPDATING = "Updating"
    ROLLING_BACK = "RollingBack"
    IN_SERVICE = "InService"
    FAILED = "Failed"
    DELETING = "Deleting"


#: As the event of a state change spells them.
_EVENT_STATUS = {
    EndpointStatus.CREATING: "CREATING",
    EndpointStatus.UPDATING: "UPDATING",
    EndpointStatus.ROLLING_BACK: "ROLLING_BACK",
    EndpointStatus.IN_SERVICE: "IN_SERVICE",
    EndpointStatus.FAILED: "FAILED",
    EndpointStatus.DELETING: "DELETING",
}
#: Seconds that a request to the replaced servers may still take.
_DRAIN_SECONDS = 60.0
_BUSY = (EndpointStatus.CREATING, EndpointStatus.UPDATING, EndpointStatus.ROLLING_BACK, EndpointStatus.DELETING)


class EndpointOperations(EndpointConfigOperations):
    """CreateEndpoint, DescribeEndpoint, ListEndpoints, UpdateEndpoint, UpdateEndpointWeightsAndCapacities, DeleteEndpoint.

    An endpoint's document has, beside what is described, what serves ("_live") and is being deployed ("_next"): a configuration's name and its variants, each
    with the container it serves, and what the deployment is at ("_stage", by variant). Configurations, models and packages may be deleted meanwhile.
    """

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.fleet = Fleet()
        self._endpoints = cloud.db.table("sagemaker.endpoints")
        self._endpoint_changed = threading.Condition()
        self._deployments: dict[str, threading.Thread] = {}
        self._starting: dict[str, list[LiveVariant]] = {}
        self._closing = threading.Event()

    def start(self) -> None:
        """Serve what was in service when the process before this one ended; what was being deployed then is as it was before."""
        super().start()
        for endpoint in self._endpoints.values():
            name = endpoint["EndpointName"]
            if endpoint["EndpointStatus"] == EndpointStatus.DELETING:
                self._forget(endpoint)
            elif endpoint["EndpointStatus"] == EndpointStatus.CREATING:
                self._settle(name, EndpointStatus.FAILED, "InternalServerError: localcloud ended while the endpoint was being created.")
            elif endpoint["EndpointStatus"] in (EndpointStatus.UPDATING, EndpointStatus.ROLLING_BACK):
                self._settle(name, EndpointStatus.IN_SERVICE, "InternalServerError: localcloud ended while the endpoint was being updated.")
            if endpoint.get("_live") and endpoint["EndpointStatus"] != EndpointStatus.DELETING:
                variants = self._servers(name, endpoint["_live"])
                # At once: a request waits for its server to come up.
                self.fleet.replace(name, variants)
                self._deploy(name, functools.partial(self._restore, variants=variants))

    def stop(self) -> None:
        """End every server; documents stay, so that `start` finds what serves."""
        self._closing.set()
        for variants in list(self._starting.values()):
            for live in variants:
                live.server.stop()
        for thread in list(self._deployments.values()):
            thread.join()
        self.fleet.stop()
        super().stop()

    def create_endpoint(self, params: Params) -> Params:
        """Begin to serve a configuration.

        Raises:
            ServiceError: There is an endpoint of that name, or no such configuration or model.
        """
        check_tags(params.get("Tags"))
        name = params["EndpointName"]
        arn = self.arn("endpoint", name)
        deployment = self._deployment_of(params["EndpointConfigName"])
        # Kept for updates with RetainDeploymentConfig; "there are no changes to the CreateEndpoint API behavior".
        plan(params.get("DeploymentConfig"), deployment["Variants"])
        moment = now()
        document: Document = {
            "EndpointName": name,
            "EndpointArn": arn,
            "EndpointConfigName": params["EndpointConfigName"],
            "EndpointStatus": EndpointStatus.CREATING,
            "CreationTime": moment,
            "LastModifiedTime": moment,
            "_next": deployment,
        } | ({"LastDeploymentConfig": params["DeploymentConfig"]} if params.get("DeploymentConfig") else {})
        with self._endpoints.lock():
            if name in self._endpoints:
                raise ServiceError("ValidationException", f'Cannot create already existing endpoint "{arn}".')
            self._endpoints.put(name, document)
            self.tags.create(arn, params.get("Tags"))
        self._announce_endpoint(document)
        self._deploy(name, self._create)
        return {"EndpointArn": arn}

    def describe_endpoint(self, params: Params) -> Params:
        """Return an endpoint."""
        endpoint = self.endpoint(params["EndpointName"])
        visible = {key: value for key, value in endpoint.items() if not key.startswith("_") and value is not None}
        live, coming = endpoint.get("_live"), endpoint.get("_next")
        if live:
            visible["ProductionVariants"] = [_summary(variant) for variant in live["Variants"]]
        if coming:
            visible["PendingDeploymentSummary"] = _pending(endpoint)
        return visible

    def list_endpoints(self, params: Params) -> Params:
        """Return a page of endpoints."""
        found, token = list_page(self._endpoints.values(), params, name="EndpointName", status="EndpointStatus")
        members = ("EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus")
        return {"Endpoints": [given(document, *members) for document in found]} | token

    def update_endpoint(self, params: Params) -> Params:
        """Begin to serve another configuration; the present one serves until the other's servers answer.

        Raises:
            ServiceError: There is no such endpoint or configuration, or the endpoint is changing already.
        """
        name = params["EndpointName"]
        with self._endpoints.lock():
            endpoint = self._steady(name)
            deployment = self._deployment_of(params["EndpointConfigName"])
            if params.get("RetainAllVariantProperties"):
                _retain(endpoint["_live"]["Variants"], deployment["Variants"], params.get("ExcludeRetainedVariantProperties") or [])
            config = params.get("DeploymentConfig") or (
                endpoint.get("LastDeploymentConfig") if params.get("RetainDeploymentConfig") else None
            )
            self._check_update(endpoint["_live"]["Variants"], deployment["Variants"], config)
            changes: Document = {
                "EndpointStatus": EndpointStatus.UPDATING,
                "FailureReason": None,
                "LastDeploymentConfig": config,
                "LastModifiedTime": now(),
                "_next": deployment,
            }
            document = self._endpoints.update(name, **changes)
        self._announce_endpoint(document)
        self._deploy(name, self._update)
        return {"EndpointArn": document["EndpointArn"]}

    def update_endpoint_weights_and_capacities(self, params: Params) -> Params:
        """Change the variants' shares of the traffic (instance counts are recorded).

        Raises:
            ServiceError: There is no such endpoint or variant, or the endpoint is changing already.
        """
        name = params["EndpointName"]
        with self._endpoints.lock():
            endpoint = self._steady(name)
            live = endpoint["_live"]
            by_name = {variant["VariantName"]: variant for variant in live["Variants"]}
            for wanted in params["DesiredWeightsAndCapacities"]:
                refuse_others(wanted, ("VariantName", "DesiredWeight", "DesiredInstanceCount"), "UpdateEndpointWeightsAndCapacities")
                variant = by_name.get(wanted["VariantName"])
                if variant is None:
                    raise ServiceError(
                        "ValidationException",
                        f'The variant name(s) "{wanted["VariantName"]}" is/are not present within endpoint "{endpoint["EndpointArn"]}".',
                    )
                if wanted.get("DesiredWeight") is not None:
                    variant["InitialVariantWeight"] = wanted["DesiredWeight"]
                if wanted.get("DesiredInstanceCount") is not None:
                    variant["InitialInstanceCount"] = wanted["DesiredInstanceCount"]
            document = self._endpoints.update(name, _live=live, LastModifiedTime=now())
            self.fleet.set_weights(name, {variant["VariantName"]: variant["InitialVariantWeight"] for variant in live["Variants"]})
        self._announce_endpoint(document)
        return {"EndpointArn": document["EndpointArn"]}

    def delete_endpoint(self, params: Params) -> None:
        """Stop serving and forget an endpoint.

        Raises:
            ServiceError: There is no such endpoint, or it is changing.
        """
        name = params["EndpointName"]
        with self._endpoints.lock():
            endpoint = self.endpoint(name)
            if endpoint["EndpointStatus"] in _BUSY:
                raise ServiceError("ValidationException", f'Cannot update in-progress endpoint "{endpoint["EndpointArn"]}".')
            document = self._endpoints.update(name, EndpointStatus=EndpointStatus.DELETING, LastModifiedTime=now())
        self._announce_endpoint(document)
        self.fleet.remove(name)
        self._forget(document)

    def endpoint(self, name: str) -> Document:
        """Return an endpoint's document.

        Raises:
            ServiceError: There is no such endpoint.
        """
        document = self._endpoints.get(name)
        if document is None:
            raise ServiceError("ValidationException", f'Could not find endpoint "{self.arn("endpoint", name)}".')
        return document

    def wait_for_endpoint(self, name: str, timeout: float | None = None) -> Params | None:
        """Wait until an endpoint is not being created or updated; return what DescribeEndpoint returns, None when *timeout* seconds pass before.

        Raises:
            ServiceError: There is no such endpoint (any more).
        """
        with self._endpoint_changed:
            steady = self._endpoint_changed.wait_for(lambda: self.endpoint(name)["EndpointStatus"] not in _BUSY, timeout)
        return self.describe_endpoint({"EndpointName": name}) if steady else None

    # Deploying.

    def _steady(self, name: str) -> Document:
        endpoint = self.endpoint(name)
        if endpoint["EndpointStatus"] in _BUSY:
            raise ServiceError("ValidationException", f'Cannot update in-progress endpoint "{endpoint["EndpointArn"]}".')
        if endpoint["EndpointStatus"] != EndpointStatus.IN_SERVICE:
            raise ServiceError(
                "ValidationException",
                f'Endpoint "{endpoint["EndpointArn"]}" is in status {endpoint["EndpointStatus"]} and cannot be updated; delete it and create it again.',
            )
        return endpoint

    def _deployment_of(self, config_name: str) -> Document:
        """Return everything that serving a configuration needs, with the models as they are now."""
        variants = []
        for variant in self.endpoint_config(config_name)["ProductionVariants"]:
            model = self.model(variant["ModelName"])
            variants.append(variant | {"_container": model["_container"], "_role": model.get("ExecutionRoleArn"), "_resolved": now()})
        return {"EndpointConfigName": config_name, "Variants": variants, "_began": now()}

    def _check_update(self, served: list[Document], coming: list[Document], config: Params | None) -> None:
        """Refuse a DeploymentConfig that cannot be followed from what serves.

        Raises:
            ServiceError: Its sizes do not fit, the variants differ, or an alarm does not exist.
        """
        alarms = plan(config, coming).alarms
        before, after = ({variant["VariantName"] for variant in variants} for variants in (served, coming))
        if config and before != after:
            raise ServiceError(
                "ValidationException",
                f"When a DeploymentConfig is specified, the new endpoint configuration must have the same variant names as the old one: "
                f"{', '.join(sorted(before))}; it has {', '.join(sorted(after))}.",
            )
        cloudwatch: Any = self.cloud.services["cloudwatch"]
        missing = [alarm for alarm in alarms if cloudwatch.alarms.get(alarm) is None]
        if missing:
            # SageMaker describes them before it begins, with the model's role; a deployment must not go on unwatched.
            raise ServiceError("ValidationException", f"The alarms of AutoRollbackConfiguration do not exist: {', '.join(missing)}.")
        for role in sorted({str(variant["_role"]) for variant in coming}) if alarms else ():
            self.cloud.iam.authorize(RoleSession(role, SESSION_NAME), "cloudwatch", "DescribeAlarms", {"AlarmNames": list(alarms)})

    def _deploy(self, name: str, work: Callable[[str], None]) -> None:
        before = self._deployments.get(name)
        thread = threading.Thread(target=self._run_deployment, args=(name, work, before), name=f"deploy {name}", daemon=True)
        self._deployments[name] = thread
        thread.start()

    def _run_deployment(self, name: str, work: Callable[[str], None], before: threading.Thread | None) -> None:
        # One after the other: what served before a restart may still be starting when the first update comes.
        if before is not None:
            before.join()
        try:
            work(name)
        except Exception as error:  # the thread's outermost boundary: a deployment always ends
            if self._closing.is_set():
                return
            log.exception("deploying endpoint %s failed inside localcloud", name)
            endpoint = self._endpoints.get(name) or {}
            status = EndpointStatus.IN_SERVICE if endpoint.get("_live") else EndpointStatus.FAILED
            self._settle(name, status, f"InternalServerError: {error}")

    def _servers(self, name: str, deployment: Document) -> list[LiveVariant]:
        """Make (not start) the servers of a deployment."""
        return [
            LiveVariant(
                variant["VariantName"],
                variant["InitialVariantWeight"],
                ModelServer(
                    self.cloud,
                    self.jobs.workshop,
                    _container(variant),
                    name,
                    variant["VariantName"],
                    variant.get("ContainerStartupHealthCheckTimeoutInSeconds", STARTUP_SECONDS),
                ),
                bool(variant.get("ServerlessConfig")),
            )
            for variant in deployment["Variants"]
        ]

    def _start_servers(self, name: str, variants: list[LiveVariant]) -> list[LiveVariant]:
        """Start the servers of a deployment.

        Raises:
            DeploymentError: One does not come up; none runs then.
        """
        self._starting[name] = variants
        try:
            start_all(live.server for live in variants)
        finally:
            del self._starting[name]
        return variants

    def _create(self, name: str) -> None:
        deployment = self.endpoint(name)["_next"]
        try:
            variants = self._start_servers(name, self._servers(name, deployment))
        except DeploymentError as error:
            self._settle_unless_closing(name, EndpointStatus.FAILED, str(error))
            return
        self.fleet.replace(name, variants)
        self._settle(name, EndpointStatus.IN_SERVICE, None, deployment)

    def _update(self, name: str) -> None:
        began = time.monotonic()
        endpoint = self.endpoint(name)
        deployment = endpoint["_next"]
        steps = plan(endpoint.get("LastDeploymentConfig"), deployment["Variants"])
        self._report(name, VariantStatus.CREATING, steps.counts, "Launching {} instance(s).", active=False)
        try:
            variants = self._start_servers(name, self._servers(name, deployment))
        except DeploymentError as error:
            self._settle_unless_closing(name, EndpointStatus.IN_SERVICE, str(error))
            return
        before = self.fleet.serving(name)
        try:
            reason = self._shift(name, steps, before, variants, began)
        except Interrupted:
            # The next start finds the update under way, and serves what served before it.
            return
        if reason is not None:
            self.fleet.replace(name, before)
            self.fleet.retire(variants, _DRAIN_SECONDS)
            self._settle_unless_closing(name, EndpointStatus.IN_SERVICE, reason)
            return
        self.fleet.replace(name, variants)
        self._settle(name, EndpointStatus.IN_SERVICE, None, deployment)
        self.fleet.retire(before, _DRAIN_SECONDS)

    def _shift(self, name: str, steps: Plan, before: list[LiveVariant], coming: list[LiveVariant], began: float) -> str | None:
        """Shift the traffic; return why it came back.

        Raises:
            Interrupted: localcloud ends.
        """
        if {live.name for live in before} != {live.name for live in coming}:
            # Only a deployment without a DeploymentConfig may do that: all at once.
            self.fleet.replace(name, coming)
            return None
        scale = self.cloud.settings.time_scale
        cloudwatch: Any = self.cloud.services["cloudwatch"]
        with cloudwatch.alarms.watch(steps.alarms, 1 / scale) as watch:
            return Rollout(
                steps,
                scale,
                divide=lambda shares: self.fleet.divide(name, before, coming, shares),
                report=functools.partial(self._report, name),
                turn=functools.partial(self._turn, name),
                alarm=watch.alarm,
                pause=self._closing.wait,
                elapsed=lambda: time.monotonic() - began,
            ).run()

    def _turn(self, name: str, reason: str) -> None:
        self._announce_endpoint(
            self._endpoints.update(name, EndpointStatus=EndpointStatus.ROLLING_BACK, FailureReason=reason, LastModifiedTime=now())
        )

    def _report(self, name: str, status: VariantStatus, instances: dict[str, int], message: str, *, active: bool = True) -> None:
        """Record and announce what a deployment is at.

        Args:
            name: The endpoint.
            status: The status of each variant.
            instances: How many instances of each variant it is about.
            message: The StatusMessage, with "{}" for that number.
            active: Whether these instances have traffic.
        """
        if any(variant.get("ServerlessConfig") for variant in self.endpoint(name)["_next"]["Variants"]):
            # Nobody is told of instances where there are none.
            return
        stage = {
            variant: {
                "active": number if active else 0,
                "status": {"Status": status, "StatusMessage": message.format(number), "StartTime": now()},
            }
            for variant, number in instances.items()
        }
        document = self._endpoints.update(name, _stage=stage)
        summary = _pending(document)
        detail = given(document, "EndpointName", "EndpointArn", "EndpointConfigName", "CreationTime", "LastModifiedTime") | {
            "EndpointStatus": _EVENT_STATUS[document["EndpointStatus"]],
            "ProductionVariants": [
                given(_summary(variant), "VariantName", "CurrentWeight", "DesiredWeight", "CurrentInstanceCount", "DesiredInstanceCount")
                for variant in document["_live"]["Variants"]
            ],
            "PendingDeploymentSummary": summary
            | {
                "ProductionVariants": [
                    {key: value for key, value in variant.items() if key not in ("DeployedImages", "InstanceType")}
                    for variant in summary["ProductionVariants"]
                ]
            },
        }
        self.emit("SageMaker Endpoint Deployment State Change", detail, document["EndpointArn"])

    def _restore(self, name: str, variants: list[LiveVariant]) -> None:
        """Serve again what served before a restart."""
        try:
            self._start_servers(name, variants)
        except DeploymentError as error:
            self.fleet.remove(name)
            self._settle_unless_closing(name, EndpointStatus.FAILED, str(error))

    def _settle_unless_closing(self, name: str, status: EndpointStatus, reason: str) -> None:
        if not self._closing.is_set():
            self._settle(name, status, reason)

    def _settle(self, name: str, status: EndpointStatus, reason: str | None, live: Document | None = None) -> None:
        """Record how a deployment ended: *live* serves now (what did before when None)."""
        changes: Document = {"EndpointStatus": status, "FailureReason": reason, "_next": None, "_stage": None, "LastModifiedTime": now()}
        if live is not None:
            changes |= {"_live": live, "EndpointConfigName": live["EndpointConfigName"]}
        document = self._endpoints.update(name, **changes)
        self._announce_endpoint(document)
        with self._endpoint_changed:
            self._endpoint_changed.notify_all()

    def _forget(self, endpoint: Document) -> None:
        self._endpoints.delete(endpoint["EndpointName"])
        self.tags.delete(endpoint["EndpointArn"])
        with self._endpoint_changed:
            self._endpoint_changed.notify_all()

    def _announce_endpoint(self, endpoint: Document) -> None:
        shown = endpoint.get("_next") or endpoint.get("_live") or {"Variants": []}
        detail = given(
            endpoint, "EndpointName", "EndpointArn", "EndpointConfigName", "FailureReason", "CreationTime", "LastModifiedTime"
        ) | {
            "EndpointStatus": _EVENT_STATUS[endpoint["EndpointStatus"]],
            "ProductionVariants": [
                {
                    "VariantName": variant["VariantName"],
                    "DesiredWeight": variant["InitialVariantWeight"],
                    "DesiredInstanceCount": variant.get("InitialInstanceCount", 0),
                }
                for variant in shown["Variants"]
            ],
        }
        self.emit("SageMaker Endpoint State Change", detail, endpoint["EndpointArn"])


def _container(variant: Document) -> Container:
    container = variant["_container"]
    source = (container.get("ModelDataSource") or {}).get("S3DataSource") or {}
    return Container(
        container.get("Image", ""),
        variant["_role"],
        container.get("Environment") or {},
        container.get("ModelDataUrl") or source.get("S3Uri"),
    )


def _summary(variant: Document) -> Document:
    """Return a ProductionVariantSummary."""
    image = variant["_container"].get("Image", "")
    summary: Document = {
        "VariantName": variant["VariantName"],
        "DeployedImages": [{"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": variant["_resolved"]}],
        "CurrentWeight": variant["InitialVariantWeight"],
        "DesiredWeight": variant["InitialVariantWeight"],
    }
    serverless = variant.get("ServerlessConfig")
    if serverless:
        return summary | {
            "CurrentServerlessConfig": serverless,
            "DesiredServerlessConfig": serverless,
            "CurrentInstanceCount": 0,
            "DesiredInstanceCount": 0,
        }
    count = variant["InitialInstanceCount"]
    return (
        summary | {"CurrentInstanceCount": count, "DesiredInstanceCount": count} | given(variant, "ManagedInstanceScaling", "RoutingConfig")
    )


def _pending(endpoint: Document) -> Document:
    """Return a PendingDeploymentSummary, with what the deployment is at."""
    coming, stage = endpoint["_next"], endpoint.get("_stage") or {}
    variants = []
    for variant in coming["Variants"]:
        summary = _summary(variant)
        at = stage.get(variant["VariantName"])
        if not variant.get("ServerlessConfig"):
            summary["CurrentInstanceCount"] = at["active"] if at else 0
        status = at["status"] if at else {"Status": VariantStatus.CREATING, "StartTime": endpoint["LastModifiedTime"]}
        summary["VariantStatus"] = [status]
        variants.append(summary | given(variant, "InstanceType"))
    return {"EndpointConfigName": coming["EndpointConfigName"], "StartTime": coming["_began"], "ProductionVariants": variants}


def _retain(served: list[Document], coming: list[Document], excluded: list[Params]) -> None:
    """Carry weights and instance counts over to variants of the same name (RetainAllVariantProperties)."""
    left_out = {item["VariantPropertyType"] for item in excluded}
    refused = left_out - {"DesiredInstanceCount", "DesiredWeight", "DataCaptureConfig"}
    if refused:
        raise not_supported(f"UpdateEndpoint: ExcludeRetainedVariantProperties {', '.join(sorted(refused))}")
    before = {variant["VariantName"]: variant for variant in served}
    for variant in coming:
        old = before.get(variant["VariantName"])
        if old is None:
            continue
        if "DesiredWeight" not in left_out:
            variant["InitialVariantWeight"] = old["InitialVariantWeight"]
        if "DesiredInstanceCount" not in left_out and "InitialInstanceCount" in variant and "InitialInstanceCount" in old:
            variant["InitialInstanceCount"] = old["InitialInstanceCount"]
