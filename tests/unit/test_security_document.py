"""docs/security.md says of every role what the templates say."""

from __future__ import annotations

import json
import re

import pytest

from helpers_policies import Resolved, as_list, known
from infrastructure.packaging import ROOT
from pipelines.settings import load_settings
from test_infrastructure_permissions import TEMPLATES, variants

TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
ROWS = {
    name: (trusted, uses.split(", "), why)
    for name, trusted, uses, why in re.findall(r"^\| `(\w+)` \| ([\w.]+) \| ([\w, -]+) \| (.+) \|$", TEXT, re.MULTILINE)
}
#: Each role in the template as it is, with everything on, when it is there.
ROLES = {
    name: resolved
    for template in TEMPLATES.values()
    for _, parameters in variants(template)
    for resolved in [Resolved(template.document, parameters)]
    for name, body in resolved.resources.items()
    if body["Type"] == "AWS::IAM::Role"
}


def test_every_role_is_in_the_table_and_nothing_else_is() -> None:
    assert set(ROWS) == set(ROLES)


@pytest.mark.parametrize("name", ROLES)
def test_the_table_says_who_assumes_a_role_and_what_it_uses(name: str) -> None:
    trusted, uses, _ = ROWS[name]
    statements = list(ROLES[name].statements())
    trusts = [item for item in statements if item.owner == name and item.kind == "trust"]
    services = {service.removesuffix(".amazonaws.com") for item in trusts for service in item.services}
    providers = {principal.rpartition("/")[2] for item in trusts for principal in item.principals}
    assert {trusted} == services | providers
    assert uses == sorted({action.partition(":")[0] for item in ROLES[name].of_role(name) for action in item.actions})


def test_the_settings_that_it_names_exist() -> None:
    keys = {row.key for row in load_settings().rows()}
    sections = {key.partition(".")[0] for key in keys}
    named = set(re.findall(r"`([a-z_]+)\.([a-z_]+)`", TEXT))
    assert {f"{section}.{name}" for section, name in named if section in sections} <= keys
    assert ("platform", "encryption_key_arn") in named


def test_the_policy_of_a_key_is_one() -> None:
    (block,) = re.findall(r"```json\n(.+?)```", TEXT, re.DOTALL)
    for statement in json.loads(block)["Statement"]:
        assert statement["Principal"] != "*"
        for action in as_list(statement["Action"]):
            assert action == "kms:*" or known(action)
