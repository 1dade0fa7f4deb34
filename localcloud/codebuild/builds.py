"""Running builds: each on a thread of its own, from StartBuild to its last phase.

A build's document is what BatchGetBuilds returns (members that start with "_" are this module's own). It is written before each change is visible, so that a restart
after kill -9 finds which builds were running: those have status FAULT, nothing of them was uploaded, and their folders are gone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localcloud.codebuild.artifacts import find_files
from localcloud.codebuild.buildspec import Artifact, Buildspec, OnFailure, PhaseName, parse_buildspec
from localcloud.codebuild.errors import NOT_FOUND, PhaseFailure
from localcloud.codebuild.events import BUILD_PHASE, BUILD_STATE, phase_detail, state_detail
from localcloud.codebuild.publishing import upload_files, upload_zip, zip_location
from localcloud.codebuild.python import make_python
from localcloud.codebuild.requests import S3Object
from localcloud.codebuild.runtimes import select_runtimes
from localcloud.codebuild.shell import Ending, Interrupted, Shell
from localcloud.codebuild.sources import download, parse_location, read_buildspec
from localcloud.codebuild.variables import resolve
from localcloud.database import Document, Table
from localcloud.errors import ServiceError
from localcloud.folders import WorkFolders, remove_tree
from localcloud.iam.principals import RoleSession
from localcloud.iam.trust import can_assume
from localcloud.object_store import ObjectStore

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

log = logging.getLogger(__name__)

PRINCIPAL = "codebuild.amazonaws.com"
#: AWS makes one up for each build.
SESSION_NAME = "AWSCodeBuild"
#: Seconds that StopBuild waits for the end that it brings about.
_STOP_SECONDS = 10.0
#: What a value must have to be hidden in the log: shorter ones are in ordinary words.
_HIDDEN_LENGTH = 3
_DONE = "COMPLETED"
_ENDED = "localcloud ended while the build was running"


class Builds:
    """The builds of the region.

    Attributes:
        table: Their documents, by id.
        minute: Seconds of a minute of a build's timeout.
    """

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.table: Table = cloud.db.table("codebuild.builds")
        self.minute = 60.0
        self.closing = False
        self._changed = threading.Condition()
        self._running: dict[str, Build] = {}

    def start(self) -> None:
        """End the builds that were running when the process before this one ended, and remove their folders."""
        self.folders = WorkFolders(self.cloud.settings.state_dir / "builds")
        for document in self.table.values():
            if not document["buildComplete"]:
                Build(self, document).fault(_ENDED)

    def stop(self) -> None:
        """End every running build."""
        self.closing = True
        running = list(self._running.values())
        for build in running:
            build.request_stop()
        for build in running:
            build.thread.join()
        self.folders.close()

    def launch(self, document: Document) -> Document:
        """Record a new build and start it; return its document as it is at that moment."""
        build = Build(self, document)
        with self._changed:
            self.table.put(build.id, build.document)
            self._running[build.id] = build
        build.announce()
        build.thread.start()
        return document

    def get(self, build_id: str) -> Document | None:
        """Return what BatchGetBuilds returns for a build (by id or ARN), or None."""
        document = self.table.get(short_id(build_id))
        return None if document is None else describe(document)

    def running(self, project: str) -> int:
        """Return how many builds of a project are under way."""
        with self._changed:
            return sum(build.document["projectName"] == project for build in self._running.values())

    def wait(self, build_id: str, timeout: float | None = None) -> Document | None:
        """Wait until a build has ended and return what BatchGetBuilds returns for it; None when *timeout* seconds pass before that.

        Raises:
            ServiceError: There is no such build.
        """
        build_id = short_id(build_id)
        if build_id not in self.table:
            raise ServiceError(NOT_FOUND, f"Build {build_id} not found.")
        with self._changed:
            ended = self._changed.wait_for(lambda: build_id not in self._running, timeout)
        return self.get(build_id) if ended else None

    def stop_build(self, build_id: str) -> Document:
        """End a build and return its document; one that has ended is left alone.

        Raises:
            ServiceError: There is no such build.
        """
        build = self._running.get(short_id(build_id))
        if build is not None:
            build.request_stop()
        ended = self.wait(build_id, _STOP_SECONDS)
        return ended or self.get(build_id) or {}

    def finished(self, build: Build) -> None:
        """Called by a build's thread as its last act."""
        with self._changed:
            self._running.pop(build.id, None)
            self._changed.notify_all()


class Build:
    """One build.

    Args:
        builds: The region's builds.
        document: What BatchGetBuilds returns, as it is when the build is submitted (or as the table has it).
    """

    def __init__(self, builds: Builds, document: Document) -> None:
        self.builds = builds
        self.cloud = builds.cloud
        self.document = document
        self.id: str = document["id"]
        self.thread = threading.Thread(target=self._run, name=self.id, daemon=True)
        self._succeeding = True
        self._stopped = threading.Event()
        self._shell: Shell | None = None
        self._lock = threading.Lock()
        self._secrets: tuple[str, ...] = ()

    def request_stop(self) -> None:
        """Begin to end the build."""
        with self._lock:
            self._stopped.set()
            shell = self._shell
        if shell is not None:
            shell.interrupt()

    def announce(self) -> None:
        """Emit the event of a change of state."""
        self._emit(BUILD_STATE, state_detail(self.document))

    def fault(self, reason: str) -> None:
        """Record that the build ended because of localcloud."""
        self._succeeding = False
        self._end_phase("FAULT", "INTERNAL_SERVICE_ERROR", reason)
        self._complete("FAULT")

    # What a build does.

    def _run(self) -> None:
        folder: Path | None = None
        try:
            folder = self.builds.folders.new()
            self._work(folder)
        except Interrupted as interrupted:
            if self.builds.closing:
                self.fault(_ENDED)
            elif interrupted.ending is Ending.TIMED_OUT:
                self._end_phase("TIMED_OUT", "BUILD_TIMED_OUT", "Build has timed out.")
                self._complete("TIMED_OUT")
            else:
                self._end_phase("STOPPED")
                self._complete("STOPPED")
        except Exception as error:  # the thread's outermost boundary: a build always ends
            if not self.builds.closing:
                log.exception("build %s failed inside localcloud", self.id)
            self.fault(f"localcloud failed to run the build: {error}")
        finally:
            if self._shell is not None:
                self._shell.close()
            if folder is not None:
                remove_tree(folder)
            self.builds.finished(self)

    def _work(self, folder: Path) -> None:
        self._deadline = time.monotonic() + self.document["timeoutInMinutes"] * self.builds.minute
        self._source, self._scratch = folder / "src", folder / "tmp"
        for new in (self._source, self._scratch, folder / "home"):
            new.mkdir(parents=True)
        self._home = folder / "home"
        self._end_phase("SUCCEEDED")
        if self._phase("PROVISIONING", self._provision) and self._phase("DOWNLOAD_SOURCE", self._download) and self._run_commands():
            self._phase("UPLOAD_ARTIFACTS", self._upload)
        self._phase("FINALIZING", self._export)
        self._complete("SUCCEEDED" if self._succeeding else "FAILED")

    @property
    def _role(self) -> RoleSession:
        return RoleSession(self.document["serviceRole"], SESSION_NAME)

    @property
    def _objects(self) -> ObjectStore:
        return self.cloud.objects.acting_as(self._role.role_arn, self._role.name)

    def _provision(self) -> None:
        self._say("Waiting for agent ping")
        role = self.document["serviceRole"]
        # CodeBuild comes for the project (https://docs.aws.amazon.com/codebuild/latest/userguide/cross-service-confused-deputy-prevention.html).
        project = self.cloud.arn("codebuild", f"project/{self.document['projectName']}")
        if not can_assume(self.cloud, role, PRINCIPAL, project):
            raise PhaseFailure("ACCESS_DENIED", f"CodeBuild is not authorized to perform: sts:AssumeRole on {role}")

    def _download(self) -> None:
        """Bring sources, buildspec and variables, and start the shell."""
        document = self.document
        folders = {"": self._source}
        if document["source"]["type"] != "NO_SOURCE":
            download(self._objects, self._source_of(document["source"], ""), self._source)
        for source in document.get("secondarySources", ()):
            identifier = source["sourceIdentifier"]
            folders[identifier] = self._source.parent / f"src-{identifier}"
            folders[identifier].mkdir()
            download(self._objects, self._source_of(source, identifier), folders[identifier])
        self._say(f"CODEBUILD_SRC_DIR={self._source}")
        text = document["source"].get("buildspec") or ""
        spec = parse_buildspec(read_buildspec(self._objects, text, None if document["source"]["type"] == "NO_SOURCE" else self._source))
        self._spec = spec
        self._say("Processing environment variables")
        variables = resolve(
            self.cloud.clients.acting_as(self._role.role_arn, self._role.name),
            spec.environment,
            document["environment"]["environmentVariables"],
        )
        # The log comes line by line; of two that begin alike the longer one must be found first.
        secrets = {line for value in variables.secrets for line in value.splitlines() if len(line) > _HIDDEN_LENGTH}
        self._secrets = tuple(sorted(secrets, key=len, reverse=True))
        for line in select_runtimes(spec.runtimes):
            self._say(line)
        self._say(f"Phases found in YAML: {len(spec.phases)}")
        for name, phase in spec.phases.items():
            self._say(f" {name.upper()}: {len(phase.commands)} commands")
        self._open_shell(spec, variables.values, folders)

    def _open_shell(self, spec: Buildspec, variables: Mapping[str, str], folders: Mapping[str, Path]) -> None:
        environment = self.cloud.client_environment(self.document["serviceRole"], SESSION_NAME)
        environment |= {
            "HOME": str(self._home),
            "PATH": f"{make_python(self._home.parent / 'python')}:{environment['PATH']}",
            # Lines reach the log when they are printed, as people expect who watch a build.
            "PYTHONUNBUFFERED": "1",
        }
        environment |= variables
        environment |= self._own_variables(folders)
        shell = Shell(self.cloud.processes, spec.environment.shell, environment, self._source, self._scratch, self._print)
        with self._lock:
            self._shell = shell
            if self._stopped.is_set():
                shell.interrupt()

    def _own_variables(self, folders: Mapping[str, Path]) -> dict[str, str]:
        document = self.document
        own = {
            "CODEBUILD_BUILD_ARN": document["arn"],
            "CODEBUILD_BUILD_ID": self.id,
            "CODEBUILD_BUILD_IMAGE": document["environment"]["image"],
            "CODEBUILD_BUILD_NUMBER": str(document["buildNumber"]),
            "CODEBUILD_CI": "true",
            "CODEBUILD_INITIATOR": document["initiator"],
            "CODEBUILD_KMS_KEY_ID": document["encryptionKey"],
            "CODEBUILD_LOG_PATH": document["logs"].get("streamName", ""),
            "CODEBUILD_RESOLVED_SOURCE_VERSION": document.get("resolvedSourceVersion", ""),
            "CODEBUILD_SOURCE_REPO_URL": document["source"].get("location", ""),
            "CODEBUILD_SOURCE_VERSION": document.get("sourceVersion", ""),
            "CODEBUILD_START_TIME": str(int(document["startTime"].timestamp() * 1000)),
        }
        own |= {f"CODEBUILD_SRC_DIR_{name}" if name else "CODEBUILD_SRC_DIR": str(folder) for name, folder in folders.items()}
        own |= {
            f"CODEBUILD_SOURCE_VERSION_{version['sourceIdentifier']}": version["sourceVersion"]
            for version in document.get("secondarySourceVersions", ())
        }
        # What CodeBuild has no value for is not set at all.
        return {name: value for name, value in own.items() if value}

    def _source_of(self, source: Mapping[str, Any], identifier: str) -> S3Object:
        handed_over = self.document.get("_sources", {}).get(identifier)
        if handed_over is not None:
            return S3Object(**handed_over)
        location = parse_location(source["location"])
        versions = {version["sourceIdentifier"]: version["sourceVersion"] for version in self.document.get("secondarySourceVersions", ())}
        versions[""] = self.document.get("sourceVersion")
        return S3Object(location.bucket, location.key, versions.get(identifier))

    def _run_commands(self) -> bool:
        """Run the phases of the buildspec; return whether artifacts are due.

        Source: https://docs.aws.amazon.com/codebuild/latest/userguide/view-build-details-phases.html.
        """
        for name in PhaseName:
            phase = self._spec.phases.get(name)
            if self._phase(name.upper(), partial(self._commands, name)):
                continue
            on_failure = phase.on_failure if phase else None
            # A build that failed still has its POST_BUILD and its artifacts; one that could not even begin has not.
            if on_failure is OnFailure.ABORT or (on_failure is None and name in (PhaseName.INSTALL, PhaseName.PRE_BUILD)):
                return False
        return True

    def _commands(self, name: PhaseName) -> None:
        self._say(f"Entering phase {name.upper()}")
        phase = self._spec.phases.get(name)
        if phase is None:
            return
        failure = self._commands_until_failure(phase.commands)
        failure = self._commands_until_failure(phase.finally_) or failure
        if failure is not None:
            raise failure

    def _commands_until_failure(self, commands: Sequence[str]) -> PhaseFailure | None:
        assert self._shell is not None
        for command in commands:
            self._say(f"Running command {command}")
            variables = {"CODEBUILD_BUILD_SUCCEEDING": "1" if self._succeeding else "0"}
            try:
                code = self._shell.run(command, variables, self._deadline)
            except OSError as error:
                return PhaseFailure("COMMAND_EXECUTION_ERROR", f"The shell cannot be started: {error}")
            if code != 0:
                self._succeeding = False
                self._say(f"Command did not exit successfully {command} exit status {code}")
                return PhaseFailure("COMMAND_EXECUTION_ERROR", f"Error while executing command: {command}. Reason: exit status {code}")
        return None

    def _export(self) -> None:
        """Give back the values of the variables that the buildspec exports."""
        if self._shell is None:
            return
        names = self._spec.environment.exported
        if names:
            values = self._shell.values(names)
            self._update(exportedEnvironmentVariables=[{"name": name, "value": values[name]} for name in names if name in values])

    def _upload(self) -> None:
        """Put the artifacts: after a crash all of them are there, or none."""
        due = self._due_artifacts()
        if not due:
            return
        found = [(target, self._named(target, artifact), find_files(artifact, self._source, self._say)) for target, artifact in due]
        with self.cloud.snapshots.held():
            uploaded = {target["artifactIdentifier"]: self._put(target, where, files) for target, where, files in found}
        # The document is the promise that the artifacts are there.
        self.cloud.snapshots.flush()
        known = {"encryptionDisabled", "overrideArtifactName", "artifactIdentifier", "bucketOwnerAccess"}
        first = {"artifacts": self.document["artifacts"] | uploaded.pop("", {})}
        others = [
            {key: value for key, value in target.items() if key in known} | uploaded[target["artifactIdentifier"]]
            for target, _ in due
            if target["artifactIdentifier"] in uploaded
        ]
        self._update(**first, **({"secondaryArtifacts": others} if others else {}))

    def _due_artifacts(self) -> list[tuple[Mapping[str, Any], Artifact]]:
        """Return the project's artifacts with what the buildspec says of each."""
        due: list[tuple[Mapping[str, Any], Artifact]] = []
        for target in self.document["_artifacts"]:
            identifier = target["artifactIdentifier"]
            artifact = self._spec.secondary_artifacts.get(identifier) if identifier else self._spec.artifact
            if artifact is None and target.get("only"):
                # A pipeline's single output may have either place in the buildspec.
                artifact = self._spec.secondary_artifacts.get(target["only"])
            if artifact is None:
                what = f"secondary-artifacts/{identifier}" if identifier else "artifacts"
                raise PhaseFailure("CLIENT_ERROR", f"no matching artifact paths found: the buildspec has no {what}")
            due.append((target, artifact))
        return due

    def _named(self, target: Mapping[str, Any], artifact: Artifact) -> S3Object:
        if target["type"] == "CODEPIPELINE":
            return S3Object(target["bucket"], target["key"])
        if target.get("overrideArtifactName") and artifact.name:
            assert self._shell is not None
            return zip_location({**target, "name": self._shell.expand(artifact.name)}, self.id)
        return zip_location(target, self.id)

    def _put(self, target: Mapping[str, Any], where: S3Object, files: Mapping[str, Path]) -> dict[str, str]:
        if target["type"] == "CODEPIPELINE" or target.get("packaging") == "ZIP":
            return upload_zip(self._objects, where, files)
        return upload_files(self._objects, where, files)

    # Phases and states.

    def _phase(self, name: str, act: Callable[[], None]) -> bool:
        """Go through a phase; return whether it succeeded.

        Raises:
            Interrupted: The build was ended from outside.
        """
        self._update(currentPhase=name, phases=[*self.document["phases"], {"phaseType": name, "startTime": _now()}])
        if self._stopped.is_set():
            raise Interrupted(Ending.STOPPED)
        if time.monotonic() > self._deadline:
            raise Interrupted(Ending.TIMED_OUT)
        try:
            act()
        except PhaseFailure as failure:
            self._succeeding = False
            self._end_phase("FAILED", failure.code, failure.message)
            return False
        self._end_phase("SUCCEEDED")
        return True

    def _end_phase(self, status: str, code: str = "", message: str = "") -> None:
        """Record the end of the phase that the build is in."""
        phases = list(self.document["phases"])
        end = _now()
        phase = {
            **phases[-1],
            "phaseStatus": status,
            "endTime": end,
            "durationInSeconds": int((end - phases[-1]["startTime"]).total_seconds()),
        }
        if code:
            phase["contexts"] = [{"statusCode": code, "message": self._hide(message)}]
        self._update(phases=[*phases[:-1], phase])
        if phase["phaseType"] not in ("SUBMITTED", "QUEUED"):
            self._say(f"Phase complete: {phase['phaseType']} State: {status}", f"Phase context status code: {code} Message: {message}")
        self._emit(BUILD_PHASE, phase_detail(self.document, phase))

    def _complete(self, status: str) -> None:
        """Record the build's end."""
        end = _now()
        self._update(
            buildStatus=status,
            buildComplete=True,
            currentPhase=_DONE,
            endTime=end,
            phases=[*self.document["phases"], {"phaseType": _DONE, "startTime": end}],
        )
        self.announce()

    def _update(self, **changes: Any) -> None:
        self.document = self.builds.table.update(self.id, **changes)

    def _emit(self, detail_type: str, detail: dict[str, Any]) -> None:
        self.cloud.emit("aws.codebuild", detail_type, detail, [self.document["arn"]])

    # The log.

    def _say(self, *lines: str) -> None:
        """Write lines as CodeBuild's agent does."""
        present = datetime.now(UTC).strftime("%Y/%m/%d %H:%M:%S.%f")
        self._print([f"[Container] {present} {line}".rstrip("\n") for line in lines])

    def _print(self, lines: Sequence[str]) -> None:
        logs = self.document["logs"]
        if "groupName" in logs:
            self.cloud.logs.write(logs["groupName"], logs["streamName"], *(self._hide(line) for line in lines), session=self._role)

    def _hide(self, text: str) -> str:
        """Return a text without the values of parameters and secrets, as CodeBuild's logs are."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def describe(document: Document) -> Document:
    """Return what BatchGetBuilds shows of a document."""
    return {key: value for key, value in document.items() if not key.startswith("_")}


def short_id(build_id: str) -> str:
    """Return a build's id, given that or its ARN."""
    return build_id.partition(":build/")[2] if build_id.startswith("arn:") else build_id


def _now() -> datetime:
    present = datetime.now(UTC)
    return present.replace(microsecond=present.microsecond // 1000 * 1000)
