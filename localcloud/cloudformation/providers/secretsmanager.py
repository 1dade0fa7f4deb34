"""AWS::SecretsManager."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from botocore.exceptions import ClientError

from localcloud.cloudformation.provider import Context, NameRule, Properties, Provider, TagStyle, changed, tag_changes, tag_list
from localcloud.cloudformation.schema import BOOLEAN, INTEGER, STRING, TAG_LIST, Object, PropertyError

Json = Any


class Secret(Provider):
    """AWS::SecretsManager::Secret."""

    type: ClassVar[str] = "AWS::SecretsManager::Secret"
    schema: ClassVar[Object] = Object(
        {
            "Description": STRING,
            "GenerateSecretString": Object(
                {
                    "ExcludeCharacters": STRING,
                    "ExcludeLowercase": BOOLEAN,
                    "ExcludeNumbers": BOOLEAN,
                    "ExcludePunctuation": BOOLEAN,
                    "ExcludeUppercase": BOOLEAN,
                    "GenerateStringKey": STRING,
                    "IncludeSpace": BOOLEAN,
                    "PasswordLength": INTEGER,
                    "RequireEachIncludedType": BOOLEAN,
                    "SecretStringTemplate": STRING,
                }
            ),
            "KmsKeyId": STRING,
            "Name": STRING,
            "SecretString": STRING,
            "Tags": TAG_LIST,
        }
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(("Name",))
    attributes: ClassVar[frozenset[str]] = frozenset(("Id",))
    name: ClassVar[NameRule] = NameRule("Name", 256)
    tags: ClassVar[TagStyle | None] = TagStyle.LIST

    def validate(self, properties: Properties) -> None:
        """A secret is given or generated, not both."""
        if "SecretString" in properties and "GenerateSecretString" in properties:
            raise PropertyError("", "You can't specify both SecretString and GenerateSecretString")

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        """Return whether there is a secret of this name."""
        return self.identify(context, name, properties) is not None

    def identify(self, context: Context, name: str, properties: Properties) -> str | None:
        """Return the ARN of the secret of this name, if there is one."""
        try:
            return str(context.clients("secretsmanager").describe_secret(SecretId=name)["ARN"])
        except ClientError as error:
            if error.response["Error"]["Code"] == "ResourceNotFoundException":
                return None
            raise

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Create the secret."""
        request: dict[str, Json] = {key: properties[key] for key in ("Description", "KmsKeyId", "Tags") if key in properties}
        text = self._text(context, properties)
        request |= {"SecretString": text} if text is not None else {}
        return str(context.clients("secretsmanager").create_secret(Name=name, **request)["ARN"])

    def _text(self, context: Context, properties: Properties) -> str | None:
        rules = dict(properties.get("GenerateSecretString") or {})
        if "GenerateSecretString" not in properties:
            text: str | None = properties.get("SecretString")
            return text
        template, key = rules.pop("SecretStringTemplate", None), rules.pop("GenerateStringKey", None)
        password = str(context.clients("secretsmanager").get_random_password(**rules)["RandomPassword"])
        return password if template is None or key is None else json.dumps({**json.loads(template), key: password})

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Set what differs; a generated secret is generated anew only when its rules change."""
        client = context.clients("secretsmanager")
        if changed(old, new, "Description", "KmsKeyId"):
            client.update_secret(
                SecretId=physical_id, Description=new.get("Description", ""), **{k: new[k] for k in ("KmsKeyId",) if k in new}
            )
        if changed(old, new, "SecretString", "GenerateSecretString"):
            text = self._text(context, new)
            if text is not None:
                client.put_secret_value(SecretId=physical_id, SecretString=text)
        to_set, to_remove = tag_changes(old, new)
        if to_set:
            client.tag_resource(SecretId=physical_id, Tags=tag_list(to_set))
        if to_remove:
            client.untag_resource(SecretId=physical_id, TagKeys=to_remove)

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return the ARN."""
        return {"Id": physical_id}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the secret at once."""
        context.clients("secretsmanager").delete_secret(SecretId=physical_id, ForceDeleteWithoutRecovery=True)
