"""AWS::IAM."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from botocore.exceptions import ClientError

from localcloud.cloudformation.provider import Context, NameRule, Properties, Provider, TagStyle, changed, tag_changes, tag_list
from localcloud.cloudformation.providers.policies import policy_text
from localcloud.cloudformation.schema import INTEGER, JSON, STRING, STRINGS, TAG_LIST, ListOf, Object

Json = Any

_CAPABILITY = "CAPABILITY_IAM"
#: Who a policy can be attached to: property → the API's word and argument.
_PRINCIPALS = (("Roles", "role", "RoleName"), ("Users", "user", "UserName"), ("Groups", "group", "GroupName"))
#: A managed policy has at most this many versions.
_MAX_VERSIONS = 5


def _ignoring_missing(method: Any, **arguments: Json) -> None:
    try:
        method(**arguments)
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchEntity":
            raise


def _is_there(method: Any, **arguments: Json) -> bool:
    try:
        method(**arguments)
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchEntity":
            return False
        raise
    return True


class Role(Provider):
    """AWS::IAM::Role."""

    type: ClassVar[str] = "AWS::IAM::Role"
    schema: ClassVar[Object] = Object(
        {
            "AssumeRolePolicyDocument": JSON,
            "Description": STRING,
            "ManagedPolicyArns": STRINGS,
            "MaxSessionDuration": INTEGER,
            "Path": STRING,
            "PermissionsBoundary": STRING,
            "Policies": ListOf(Object({"PolicyDocument": JSON, "PolicyName": STRING}, required=("PolicyDocument", "PolicyName"))),
            "RoleName": STRING,
            "Tags": TAG_LIST,
        },
        required=("AssumeRolePolicyDocument",),
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(("Path", "RoleName"))
    attributes: ClassVar[frozenset[str]] = frozenset(("Arn", "RoleId"))
    name: ClassVar[NameRule] = NameRule("RoleName", 64)
    tags: ClassVar[TagStyle | None] = TagStyle.LIST
    capability: ClassVar[str | None] = _CAPABILITY

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        """Return whether there is a role of this name."""
        return _is_there(context.clients("iam").get_role, RoleName=name)

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Create the role, without its policies."""
        request = {
            key: properties[key]
            for key in ("Description", "MaxSessionDuration", "Path", "PermissionsBoundary", "Tags")
            if key in properties
        }
        document = policy_text(properties["AssumeRolePolicyDocument"])
        context.clients("iam").create_role(RoleName=name, AssumeRolePolicyDocument=document, **request)
        return name

    def settle(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Give it its policies."""
        self._update_policies(context, physical_id, {}, properties)

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Change what differs."""
        client = context.clients("iam")
        if changed(old, new, "AssumeRolePolicyDocument"):
            client.update_assume_role_policy(RoleName=physical_id, PolicyDocument=policy_text(new["AssumeRolePolicyDocument"]))
        if changed(old, new, "Description", "MaxSessionDuration"):
            client.update_role(
                RoleName=physical_id, Description=new.get("Description", ""), MaxSessionDuration=new.get("MaxSessionDuration", 3600)
            )
        if changed(old, new, "PermissionsBoundary"):
            if new.get("PermissionsBoundary"):
                client.put_role_permissions_boundary(RoleName=physical_id, PermissionsBoundary=new["PermissionsBoundary"])
            else:
                client.delete_role_permissions_boundary(RoleName=physical_id)
        self._update_policies(context, physical_id, old, new)
        to_set, to_remove = tag_changes(old, new)
        if to_set:
            client.tag_role(RoleName=physical_id, Tags=tag_list(to_set))
        if to_remove:
            client.untag_role(RoleName=physical_id, TagKeys=to_remove)

    def _update_policies(self, context: Context, name: str, old: Properties, new: Properties) -> None:
        client = context.clients("iam")
        before, after = set(old.get("ManagedPolicyArns") or ()), set(new.get("ManagedPolicyArns") or ())
        for arn in sorted(after - before):
            client.attach_role_policy(RoleName=name, PolicyArn=arn)
        for arn in sorted(before - after):
            _ignoring_missing(client.detach_role_policy, RoleName=name, PolicyArn=arn)
        inline_before, inline_after = ({item["PolicyName"]: item["PolicyDocument"] for item in p.get("Policies") or ()} for p in (old, new))
        for policy, document in inline_after.items():
            if inline_before.get(policy) != document:
                client.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=policy_text(document))
        for policy in sorted(set(inline_before) - set(inline_after)):
            _ignoring_missing(client.delete_role_policy, RoleName=name, PolicyName=policy)

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return the ARN and the unique id."""
        role = context.clients("iam").get_role(RoleName=physical_id)["Role"]
        return {"Arn": role["Arn"], "RoleId": role["RoleId"]}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Take its policies away and delete it."""
        self._update_policies(context, physical_id, properties, {})
        context.clients("iam").delete_role(RoleName=physical_id)


class _Attached(Provider):
    """A policy that is given to roles, users and groups."""

    capability: ClassVar[str | None] = _CAPABILITY

    def give(self, context: Context, kind: str, argument: str, principal: str, physical_id: str, properties: Properties) -> None:
        """Give the policy to one role, user or group."""
        raise NotImplementedError

    def take(self, context: Context, kind: str, argument: str, principal: str, physical_id: str, properties: Properties) -> None:
        """Take the policy from one role, user or group; one that is gone does not have it."""
        raise NotImplementedError

    def _give_all(self, context: Context, physical_id: str, properties: Properties) -> None:
        for key, kind, argument in _PRINCIPALS:
            for principal in properties.get(key) or ():
                self.give(context, kind, argument, principal, physical_id, properties)

    def _take_all(self, context: Context, physical_id: str, properties: Properties, keep: Properties) -> None:
        for key, kind, argument in _PRINCIPALS:
            for principal in sorted(set(properties.get(key) or ()) - set(keep.get(key) or ())):
                self.take(context, kind, argument, principal, physical_id, properties)


class Policy(_Attached):
    """AWS::IAM::Policy: an inline policy of roles, users and groups."""

    type: ClassVar[str] = "AWS::IAM::Policy"
    schema: ClassVar[Object] = Object(
        {"Groups": STRINGS, "PolicyDocument": JSON, "PolicyName": STRING, "Roles": STRINGS, "Users": STRINGS},
        required=("PolicyDocument", "PolicyName"),
    )

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Nothing exists before it is given to somebody."""
        return name

    def settle(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Give it to all."""
        self._give_all(context, physical_id, properties)

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Give it to all that it is now for, take it from the others."""
        self._give_all(context, physical_id, new)
        self._take_all(context, physical_id, old, new if old["PolicyName"] == new["PolicyName"] else {})

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Take it from all."""
        self._take_all(context, physical_id, properties, {})

    def give(self, context: Context, kind: str, argument: str, principal: str, physical_id: str, properties: Properties) -> None:
        """Put the inline policy."""
        put = getattr(context.clients("iam"), f"put_{kind}_policy")
        put(**{argument: principal}, PolicyName=properties["PolicyName"], PolicyDocument=policy_text(properties["PolicyDocument"]))

    def take(self, context: Context, kind: str, argument: str, principal: str, physical_id: str, properties: Properties) -> None:
        """Delete the inline policy."""
        _ignoring_missing(
            getattr(context.clients("iam"), f"delete_{kind}_policy"), **{argument: principal}, PolicyName=properties["PolicyName"]
        )


class OIDCProvider(Provider):
    """AWS::IAM::OIDCProvider. It is recorded: no token of somebody else's opens a role here."""

    type: ClassVar[str] = "AWS::IAM::OIDCProvider"
    schema: ClassVar[Object] = Object(
        {"ClientIdList": STRINGS, "Tags": TAG_LIST, "ThumbprintList": STRINGS, "Url": STRING}, required=("Url",)
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(("Url",))
    attributes: ClassVar[frozenset[str]] = frozenset(("Arn",))
    name: ClassVar[NameRule] = NameRule("Url", 255)
    tags: ClassVar[TagStyle | None] = TagStyle.LIST

    def identify(self, context: Context, name: str, properties: Properties) -> str:
        """Return the ARN, which has the URL without its scheme."""
        return context.place.arn("iam", f"oidc-provider/{name.removeprefix('https://')}", region="")

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        """Return whether there is a provider of this URL."""
        get = context.clients("iam").get_open_id_connect_provider
        return _is_there(get, OpenIDConnectProviderArn=self.identify(context, name, properties))

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Create the provider."""
        client = context.clients("iam")
        request = {
            api: properties[key]
            for key, api in (("ClientIdList", "ClientIDList"), ("ThumbprintList", "ThumbprintList"), ("Tags", "Tags"))
            if key in properties
        }
        return str(client.create_open_id_connect_provider(Url=name, **request)["OpenIDConnectProviderArn"])

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Change what differs."""
        client, arn = context.clients("iam"), {"OpenIDConnectProviderArn": physical_id}
        before, after = set(old.get("ClientIdList") or ()), set(new.get("ClientIdList") or ())
        for audience in sorted(after - before):
            client.add_client_id_to_open_id_connect_provider(**arn, ClientID=audience)
        for audience in sorted(before - after):
            client.remove_client_id_from_open_id_connect_provider(**arn, ClientID=audience)
        if changed(old, new, "ThumbprintList"):
            client.update_open_id_connect_provider_thumbprint(**arn, ThumbprintList=new.get("ThumbprintList") or [])
        to_set, to_remove = tag_changes(old, new)
        if to_set:
            client.tag_open_id_connect_provider(**arn, Tags=tag_list(to_set))
        if to_remove:
            client.untag_open_id_connect_provider(**arn, TagKeys=to_remove)

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return the ARN."""
        return {"Arn": physical_id}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the provider."""
        context.clients("iam").delete_open_id_connect_provider(OpenIDConnectProviderArn=physical_id)


class ManagedPolicy(_Attached):
    """AWS::IAM::ManagedPolicy."""

    type: ClassVar[str] = "AWS::IAM::ManagedPolicy"
    schema: ClassVar[Object] = Object(
        {
            "Description": STRING,
            "Groups": STRINGS,
            "ManagedPolicyName": STRING,
            "Path": STRING,
            "PolicyDocument": JSON,
            "Roles": STRINGS,
            "Users": STRINGS,
        },
        required=("PolicyDocument",),
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(("ManagedPolicyName", "Description", "Path"))
    attributes: ClassVar[frozenset[str]] = frozenset(("PolicyArn", "PolicyId"))
    name: ClassVar[NameRule] = NameRule("ManagedPolicyName", 128)

    def identify(self, context: Context, name: str, properties: Properties) -> str:
        """Return the ARN."""
        return context.place.arn("iam", f"policy{properties.get('Path', '/')}{name}", region="")

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        """Return whether there is a policy of this name."""
        return _is_there(context.clients("iam").get_policy, PolicyArn=self.identify(context, name, properties))

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Create the policy."""
        request = {key: properties[key] for key in ("Description", "Path") if key in properties}
        document = policy_text(properties["PolicyDocument"])
        created = context.clients("iam").create_policy(PolicyName=name, PolicyDocument=document, **request)
        return str(created["Policy"]["Arn"])

    def settle(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Attach it."""
        self._give_all(context, physical_id, properties)

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Make a new default version and change who has it."""
        client = context.clients("iam")
        if changed(old, new, "PolicyDocument"):
            versions = client.list_policy_versions(PolicyArn=physical_id)["Versions"]
            spare = sorted((item for item in versions if not item["IsDefaultVersion"]), key=lambda item: item["CreateDate"])
            self._delete_versions(client, physical_id, spare[: max(len(versions) - _MAX_VERSIONS + 1, 0)])
            client.create_policy_version(PolicyArn=physical_id, PolicyDocument=policy_text(new["PolicyDocument"]), SetAsDefault=True)
        self._give_all(context, physical_id, new)
        self._take_all(context, physical_id, old, new)

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return the ARN and the unique id."""
        return {"PolicyArn": physical_id, "PolicyId": context.clients("iam").get_policy(PolicyArn=physical_id)["Policy"]["PolicyId"]}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Detach and delete it."""
        client = context.clients("iam")
        self._take_all(context, physical_id, properties, {})
        self._delete_versions(client, physical_id, client.list_policy_versions(PolicyArn=physical_id)["Versions"])
        client.delete_policy(PolicyArn=physical_id)

    @staticmethod
    def _delete_versions(client: Any, arn: str, versions: Iterable[Json]) -> None:
        for version in versions:
            if not version["IsDefaultVersion"]:
                client.delete_policy_version(PolicyArn=arn, VersionId=version["VersionId"])

    def give(self, context: Context, kind: str, argument: str, principal: str, physical_id: str, properties: Properties) -> None:
        """Attach the policy."""
        getattr(context.clients("iam"), f"attach_{kind}_policy")(**{argument: principal}, PolicyArn=physical_id)

    def take(self, context: Context, kind: str, argument: str, principal: str, physical_id: str, properties: Properties) -> None:
        """Detach the policy."""
        _ignoring_missing(getattr(context.clients("iam"), f"detach_{kind}_policy"), **{argument: principal}, PolicyArn=physical_id)
