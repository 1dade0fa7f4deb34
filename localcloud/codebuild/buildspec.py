"""Buildspecs, version 0.2: parsed with the line of every mistake; nothing in one is ignored.

Source: https://docs.aws.amazon.com/codebuild/latest/userguide/build-spec-ref.html. Texts are read as they are written, as CodeBuild does: ``python: 3.10`` is the
version "3.10", ``yes`` the text "yes".
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import yaml

from localcloud.codebuild.errors import PhaseFailure

_YES, _NO = ("yes", "true", "on"), ("no", "false", "off", "")
_SHELLS = {"bash": "bash", "/bin/bash": "bash", "sh": "sh", "/bin/sh": "sh"}
#: The names that a shell has variables of.
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class BuildspecError(PhaseFailure):
    """Indicates that a buildspec cannot be used; the message says why, and in which line."""

    def __init__(self, message: str) -> None:
        super().__init__("YAML_FILE_ERROR", message)


class PhaseName(enum.StrEnum):
    """The phases that a buildspec describes, in their order."""

    INSTALL = "install"
    PRE_BUILD = "pre_build"
    BUILD = "build"
    POST_BUILD = "post_build"


class OnFailure(enum.StrEnum):
    """What follows a phase that failed."""

    ABORT = "ABORT"
    CONTINUE = "CONTINUE"


@dataclass(frozen=True)
class Phase:
    """The commands of a phase.

    Attributes:
        commands: They run until one fails.
        finally_: They run afterwards in any case.
        on_failure: What follows a failure; None for CodeBuild's own order of phases.
    """

    commands: tuple[str, ...] = ()
    finally_: tuple[str, ...] = ()
    on_failure: OnFailure | None = None


@dataclass(frozen=True)
class Artifact:
    """Which files are an artifact.

    Attributes:
        files: Patterns below the base directory.
        name: Its name, in the language of the shell; used when the project lets the buildspec name it.
        base_directory: A pattern of folders below the source's.
        discard_paths: Files lose their folders.
        exclude_paths: Patterns of files that are left out.
    """

    files: tuple[str, ...]
    name: str | None = None
    base_directory: str = "."
    discard_paths: bool = False
    exclude_paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Environment:
    """The variables of a build, and its shell.

    Attributes:
        variables, parameter_store, secrets_manager: Variables by name: their values, the names of their parameters, the references to their secrets.
        exported: Names of the variables whose values the build gives back.
        shell: ``sh`` or ``bash``.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    parameter_store: Mapping[str, str] = field(default_factory=dict)
    secrets_manager: Mapping[str, str] = field(default_factory=dict)
    exported: tuple[str, ...] = ()
    shell: str = "sh"


@dataclass(frozen=True)
class Buildspec:
    """A buildspec.

    Attributes:
        environment: Its ``env``.
        runtimes: Versions by runtime.
        phases: Those that it has.
        artifact: The primary artifact.
        secondary_artifacts: The others by identifier.
    """

    environment: Environment = field(default_factory=Environment)
    runtimes: Mapping[str, str] = field(default_factory=dict)
    phases: Mapping[PhaseName, Phase] = field(default_factory=dict)
    artifact: Artifact | None = None
    secondary_artifacts: Mapping[str, Artifact] = field(default_factory=dict)


def parse_buildspec(text: str) -> Buildspec:
    """Read a buildspec.

    Raises:
        BuildspecError: It is none that can be run here.
    """
    try:
        return _buildspec(_Mapping(yaml.compose(text, Loader=yaml.SafeLoader), "the buildspec"))
    except yaml.MarkedYAMLError as error:
        line = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BuildspecError(f"{error.problem}{line}") from error
    except yaml.YAMLError as error:
        raise BuildspecError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise BuildspecError("the file is nested too deeply") from error


class _Mapping:
    """A mapping of the file, from which members are taken one by one; what nobody takes is a mistake."""

    def __init__(self, node: yaml.Node | None, what: str) -> None:
        self.what = what
        self.line = _line(node)
        self._items: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        if node is None or _is_empty(node):
            return
        if not isinstance(node, yaml.MappingNode):
            raise BuildspecError(f"expected {what} to be a mapping at line {self.line}")
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise BuildspecError(f"<< at line {_line(key)} is not supported by localcloud")
            if _key(key) in self._items:
                raise BuildspecError(f"the key {_key(key)} of {what} is given more than once, at line {_line(key)}")
            self._items[_key(key)] = (key, value)

    def __contains__(self, name: str) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def name_of(self, name: str) -> str:
        """Return a member as messages name it."""
        return name if self.what == "the buildspec" else f"{self.what}/{name}"

    def line_of(self, name: str) -> int:
        """Return a member's line."""
        return _line(self._items[name][0])

    def only(self, supported: Collection[str], unsupported: Collection[str] = ()) -> None:
        """Refuse every other member."""
        for name in self:
            if name in unsupported:
                raise self.unsupported(name)
            if name not in supported:
                raise BuildspecError(
                    f"{self.name_of(name)} at line {self.line_of(name)} is not part of a buildspec; expected one of {', '.join(sorted(supported))}"
                )

    def unsupported(self, name: str, value: str = "") -> BuildspecError:
        """Return the error for what CodeBuild has and localcloud has not."""
        return BuildspecError(f"{self.name_of(name)}{value and f' {value}'} at line {self.line_of(name)} is not supported by localcloud")

    def mapping(self, name: str) -> _Mapping:
        """Return a member that is a mapping; an empty one when there is none."""
        node = self._items[name][1] if name in self else None
        return _Mapping(node, self.name_of(name))

    def text(self, name: str) -> str | None:
        """Return a member that is a text, or None."""
        if name not in self:
            return None
        node = self._items[name][1]
        if not isinstance(node, yaml.ScalarNode):
            raise BuildspecError(f"expected {self.name_of(name)} at line {self.line_of(name)} to be of string type")
        return str(node.value)

    def texts(self, name: str, *, one: bool = False) -> tuple[str, ...]:
        """Return a member that is a sequence of texts; empty when there is none.

        Args:
            name: The member.
            one: A single text is a sequence of one.
        """
        if name not in self:
            return ()
        node = self._items[name][1]
        if one and isinstance(node, yaml.ScalarNode) and not _is_empty(node):
            return (str(node.value),)
        if _is_empty(node):
            return ()
        if not isinstance(node, yaml.SequenceNode):
            raise BuildspecError(f"expected {self.name_of(name)} at line {self.line_of(name)} to be a sequence")
        for index, item in enumerate(node.value):
            if not isinstance(item, yaml.ScalarNode):
                # CodeBuild's words, for what is mostly an unquoted ": " in a command.
                raise BuildspecError(
                    f"Expected {name.capitalize()}[{index}] to be of string type: found subkeys instead at line {_line(item)}, value of the key tag on line "
                    f"{self.line_of(name)} might be empty"
                )
        return tuple(str(item.value) for item in node.value)

    def flag(self, name: str) -> bool:
        """Return a member that is yes or no; no when there is none."""
        text = (self.text(name) or "").lower()
        if text not in (*_YES, *_NO):
            raise BuildspecError(f"expected {self.name_of(name)} at line {self.line_of(name)} to be yes or no, not {text}")
        return text in _YES


def _buildspec(root: _Mapping) -> Buildspec:
    root.only(("version", "env", "phases", "artifacts", "cache"), ("batch", "proxy", "reports", "run-as"))
    version = root.text("version")
    if version is None:
        raise BuildspecError("the buildspec has no version; write version: 0.2")
    if version != "0.2":
        if version == "0.1":
            raise root.unsupported("version", version)
        raise BuildspecError(f"unknown version {version} at line {root.line_of('version')}; the version is 0.2")
    phases = root.mapping("phases")
    phases.only(list(PhaseName))
    if not list(phases):
        raise BuildspecError("the buildspec has no phases; at least one is needed")
    # Accepted and without effect: a build takes nothing from an earlier one.
    cache = root.mapping("cache")
    cache.only(("paths", "key", "fallback-keys", "action"))
    cache.texts("paths")
    artifact, secondary = _artifacts(root.mapping("artifacts"))
    return Buildspec(
        environment=_environment(root.mapping("env")),
        runtimes=_texts(phases.mapping(PhaseName.INSTALL).mapping("runtime-versions")),
        phases={PhaseName(name): _phase(phases, name) for name in phases},
        artifact=artifact,
        secondary_artifacts=secondary,
    )


def _environment(env: _Mapping) -> Environment:
    env.only(("shell", "variables", "parameter-store", "secrets-manager", "exported-variables", "git-credential-helper"))
    if env.flag("git-credential-helper"):
        raise env.unsupported("git-credential-helper")
    shell = env.text("shell") or "sh"
    if shell not in _SHELLS:
        raise env.unsupported("shell", shell)
    exported = env.texts("exported-variables")
    for name in exported:
        if not VARIABLE.fullmatch(name):
            raise BuildspecError(
                f"{name} in env/exported-variables at line {env.line_of('exported-variables')} is not the name of a variable"
            )
    return Environment(
        variables=_variables(env.mapping("variables")),
        parameter_store=_variables(env.mapping("parameter-store")),
        secrets_manager=_variables(env.mapping("secrets-manager")),
        exported=exported,
        shell=_SHELLS[shell],
    )


def _variables(members: _Mapping) -> dict[str, str]:
    for name in members:
        if not VARIABLE.fullmatch(name):
            raise BuildspecError(f"{members.name_of(name)} at line {members.line_of(name)} is not the name of a variable")
    return _texts(members)


def _texts(members: _Mapping) -> dict[str, str]:
    return {name: members.text(name) or "" for name in members}


def _phase(phases: _Mapping, name: str) -> Phase:
    phase = phases.mapping(name)
    supported = ["commands", "finally", "on-failure"] + (["runtime-versions"] if name == PhaseName.INSTALL else [])
    phase.only(supported, ("run-as",))
    commands = phase.texts("commands")
    if not commands and (name != PhaseName.INSTALL or "commands" in phase):
        raise BuildspecError(f"{phase.what} at line {phases.line_of(name)} has no commands")
    on_failure = phase.text("on-failure")
    if on_failure is not None and on_failure not in list(OnFailure):
        if on_failure.startswith("RETRY"):
            raise phase.unsupported("on-failure", on_failure)
        raise BuildspecError(f"{phase.what}/on-failure at line {phase.line_of('on-failure')} is {on_failure}; expected ABORT or CONTINUE")
    return Phase(commands, phase.texts("finally"), None if on_failure is None else OnFailure(on_failure))


def _artifacts(artifacts: _Mapping) -> tuple[Artifact | None, dict[str, Artifact]]:
    secondary = artifacts.mapping("secondary-artifacts")
    others = {name: _artifact(secondary.mapping(name)) for name in secondary}
    if not list(artifacts) or (others and "files" not in artifacts):
        artifacts.only(("secondary-artifacts",), ("enable-symlinks", "s3-prefix"))
        return None, others
    return _artifact(artifacts, "secondary-artifacts"), others


def _artifact(artifact: _Mapping, *also: str) -> Artifact:
    artifact.only(("files", "name", "base-directory", "discard-paths", "exclude-paths", *also), ("enable-symlinks", "s3-prefix"))
    files = artifact.texts("files", one=True)
    if not files:
        raise BuildspecError(f"{artifact.what} at line {artifact.line} has no files")
    return Artifact(
        files,
        artifact.text("name") or None,
        artifact.text("base-directory") or ".",
        artifact.flag("discard-paths"),
        artifact.texts("exclude-paths", one=True),
    )


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise BuildspecError(f"expected a key of string type at line {_line(node)}")
    return str(node.value)


def _line(node: yaml.Node | None) -> int:
    return node.start_mark.line + 1 if node is not None and node.start_mark else 1
