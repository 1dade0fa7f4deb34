"""One running region: everything a service may need, in one object that is handed to it."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import re
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any

from moto.core.base_backend import BackendDict

from localcloud import managed_policies
from localcloud.background import Background
from localcloud.cloudwatch.records import ServiceMetrics
from localcloud.cloudwatch.store import MetricStore
from localcloud.database import Database
from localcloud.errors import LocalCloudError
from localcloud.iam import assuming, resource_policies
from localcloud.iam.guard import Guard
from localcloud.iam.principals import RoleSession
from localcloud.isolation import isolate
from localcloud.log_keys import add_log_keys
from localcloud.log_prefixes import add_log_prefixes
from localcloud.logs import LogWriter
from localcloud.object_keys import record_object_keys
from localcloud.object_store import ObjectStore
from localcloud.processes import Supervisor
from localcloud.queue_policies import keep_queue_policies
from localcloud.settings import CloudSettings
from localcloud.snapshots import Snapshots

if TYPE_CHECKING:
    from localcloud.service import Service

log = logging.getLogger(__name__)

#: What children inherit of this process's environment: where things are, which certificates and proxies to use, how numeric libraries run.
_INHERITED = re.compile(
    r"HOME|USER|LOGNAME|SHELL|TERM|TZ|TMPDIR|LANG|LC_\w+|LD_LIBRARY_PATH|DYLD_\w+|PYTHONDONTWRITEBYTECODE|PYTHONHASHSEED|PIP_\w+"
    r"|SSL_CERT_\w+|\w+_CA_BUNDLE|HTTPS?_PROXY|NO_PROXY|https?_proxy|no_proxy|(OMP|OPENBLAS|MKL|NVPL|VECLIB|GOTO|TORCH|CUDA)_\w+"
)

#: localcloud's own services, by botocore service name. Everything else that SUPPORTED_BY_MOTO (gateway.py) lists is moto's.
SERVICES: dict[str, str] = {
    "sagemaker": "localcloud.sagemaker.service:SageMakerService",
    "sagemaker-runtime": "localcloud.sagemaker.runtime:RuntimeService",
    "lambda": "localcloud.awslambda.service:LambdaService",
    "events": "localcloud.eventbridge.service:EventBridgeService",
    "stepfunctions": "localcloud.stepfunctions.service:StepFunctionsService",
    "cloudformation": "localcloud.cloudformation.service:CloudFormationService",
    "cloudwatch": "localcloud.cloudwatch.service:CloudWatchService",
    "codebuild": "localcloud.codebuild.service:CodeBuildService",
    "codeconnections": "localcloud.codeconnections.service:CodeConnectionsService",
    "codestar-connections": "localcloud.codeconnections.service:CodeStarConnectionsService",
    "codepipeline": "localcloud.codepipeline.service:CodePipelineService",
}


class Cloud:
    """The region.

    Attributes:
        settings: What this process was told.
        db: The state file; own services keep their documents in ``db.table("sagemaker.endpoints")``.
        processes: Starts and ends child processes.
        logs: Writes to CloudWatch Logs.
        iam: Decides what roles may do.
        objects: S3 without HTTP.
        background: The loop on which work goes on after a request is answered.
        metric_store: The samples of CloudWatch metrics.
        metrics: Adds what the region's services report about themselves.
        snapshots: Keeps moto's state across restarts.
        services: localcloud's own services by botocore name.
    """

    def __init__(self, settings: CloudSettings) -> None:
        self.settings = settings
        try:
            settings.state_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LocalCloudError(
                f"The state folder {settings.state_dir} cannot be made: {error.strerror}. Choose another with --state-dir."
            ) from error
        self.port = settings.port
        self.db = Database(settings.state_dir / "localcloud.db")
        self.snapshots = Snapshots(self.db, settings.state_dir)
        self.processes = Supervisor()
        self.logs = LogWriter(self)
        self.iam = Guard(self)
        self.objects = ObjectStore(self)
        self.background = Background()
        self.metric_store = MetricStore(self.db)
        self.metrics = ServiceMetrics(self.metric_store)
        self.services: dict[str, Service] = {name: _load(target)(self) for name, target in SERVICES.items() if _exists(target)}

    @property
    def endpoint_url(self) -> str:
        """The URL that clients use as AWS_ENDPOINT_URL (known once the server is bound)."""
        return f"http://127.0.0.1:{self.port}"

    def arn(self, service: str, resource: str) -> str:
        """Return the ARN of a resource in this region, e.g. ``arn("sagemaker", "endpoint/x")``."""
        return f"arn:aws:{service}:{self.settings.region}:{self.settings.account_id}:{resource}"

    def mark_dirty(self, service: str) -> None:
        """Say that moto's state of a service changed outside of an HTTP request to it, so that it is saved."""
        self.snapshots.mark_dirty(service)

    def emit(self, source: str, detail_type: str, detail: dict[str, Any], resources: list[str] | None = None) -> None:
        """Put an AWS service event (e.g. source ``aws.sagemaker``) on the default event bus; delivery happens in the background."""
        events: Any = self.services["events"]
        events.emit(source=source, detail_type=detail_type, detail=detail, resources=resources or [])

    def client_environment(self, role_arn: str, session_name: str) -> dict[str, str]:
        """Return the environment variables with which a child's AWS clients reach this region, and nothing of this process's own AWS settings.

        Args:
            role_arn: The role that the child runs as.
            session_name: Name of its session, as AWS names it.
        """
        # A container sees none of the shell that started localcloud: a token in a variable must reach neither a job nor, printed, its log.
        environment = {key: value for key, value in os.environ.items() if _INHERITED.fullmatch(key)}
        isolate(environment)
        environment |= {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_REGION": self.settings.region,
            "AWS_DEFAULT_REGION": self.settings.region,
            "AWS_ACCESS_KEY_ID": "ASIALOCALCLOUD000000",
            "AWS_SECRET_ACCESS_KEY": "localcloud",
            "AWS_SESSION_TOKEN": RoleSession(role_arn, session_name).token,
            # StartSyncExecution's client would ask "sync-127.0.0.1".
            "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]),
        }
        return environment

    @cached_property
    def clients(self) -> Any:
        """boto3 clients onto this region for use inside the process, by service name; made once each."""
        from localcloud.clients import Clients

        return Clients(self)

    def start(self) -> None:
        """Load the state and start the services (after the port is known)."""
        # moto's backends are the process's, not this object's: what an earlier region in the same process (a test's) left is not ours.
        BackendDict.reset()
        resource_policies.install(self.iam)
        assuming.install()
        managed_policies.install()
        add_log_keys()
        add_log_prefixes()
        keep_queue_policies()
        record_object_keys(self.settings.account_id, self.settings.region)
        self.snapshots.load()
        self.metric_store.load()
        self.background.start()
        for service in self.services.values():
            service.start()
        self.snapshots.start()

    def stop(self) -> None:
        """Stop services and children, save the state."""
        for service in reversed(list(self.services.values())):
            service.stop()
        self.background.stop()
        self.processes.stop()
        self.snapshots.stop()
        self.metric_store.close()
        self.db.close()


def _exists(target: str) -> bool:
    try:
        return importlib.util.find_spec(target.partition(":")[0]) is not None
    except ModuleNotFoundError:
        return False


def _load(target: str) -> type[Service]:
    module, _, name = target.partition(":")
    loaded: type[Service] = getattr(importlib.import_module(module), name)
    return loaded
