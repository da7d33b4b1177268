# ruff: noqa: E501 - a case is one line
"""Promises of the severity: every kind of event has its own, privileges cannot be raised in silence, and rules are data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from support import header

from auditship.errors import ConfigurationError
from auditship.line import decode
from auditship.sample import _ACTIONS
from indexer.assemble import builder_of, places_of
from indexer.build import Block
from indexer.commands.severity import markdown, rows
from indexer.commands.severity import severity as command
from indexer.decode import decode_block
from indexer.document import EVENT_SEVERITY
from indexer.enrich.rule import EXPECTED
from indexer.enrich.severity import Judgement, Severities
from indexer.organizations import Policies
from indexer.settings import EnrichmentSettings

BUILT_IN = Severities.load(None)

# action, severity when done, severity when failed, event.category, event.type; the part before the dot is the resource's type
CATALOGUE = """
authentication.login         info      critical  authentication       start
auth.login                   info      critical  authentication       start
user.login                   info      critical  authentication       start
user.login_failed            critical  critical  authentication       start
user.locked_out              critical  critical  authentication       info
sso.login                    info      critical  authentication       start
mfa.verify                   info      critical  authentication       info
session.create               info      critical  session              start
session.refresh              info      warning   session              start
session.delete               info      warning   session              end
session.revoke               warning   warning   session              end
session.revoke_all           warning   warning   session              end
session.policy.update        warning   warning   iam,configuration    change
session.list                 info      warning   api                  access
session.policy.read          info      warning   api                  access
auth.settings.view           info      critical  api                  access
authentication.logout        info      warning   session              end
access.denied                critical  critical  api                  access,denied
api.unauthorized             critical  critical  api                  access,denied
user.impersonate             critical  critical  authentication       start
member.invite                warning   warning   iam                  user,creation
member.add                   warning   warning   iam                  user,creation
member.remove                warning   warning   iam                  user,deletion
member.update                warning   warning   iam                  user,change
member.suspend               warning   warning   iam                  user,change
member.list                  info      warning   api                  access
member.promote               warning   critical  iam                  user,change
invitation.create            warning   warning   iam                  user,creation
invitation.accept            warning   warning   iam                  user,creation
invitation.revoke            warning   warning   iam                  user,deletion
user.create                  warning   warning   iam                  user,creation
user.delete                  warning   warning   iam                  user,deletion
user.email.update            warning   warning   iam                  user,change
user.password.reset          warning   warning   iam                  user,change
password.change              warning   warning   iam                  user,change
password_policy.update       critical  critical  iam,configuration    change
team.create                  warning   warning   iam                  group,creation
team.member.add              warning   warning   iam                  group,change
team.delete                  warning   warning   iam                  group,deletion
role.create                  warning   critical  iam                  admin,change
role.assign                  warning   critical  iam                  admin,change
role.assign_owner            critical  critical  iam                  admin,change
role.assign_admin            warning   critical  iam                  admin,change
role.revoke                  warning   critical  iam                  admin,change
role.read                    info      critical  api                  access
permission.update            warning   critical  iam                  admin,change
access_policy.update         warning   critical  iam                  admin,change
privilege.escalate           critical  critical  iam                  admin,change
organization.owner.add       critical  critical  iam                  admin,change
api_token.create             warning   warning   iam                  creation
api_token.update             warning   warning   iam                  change
api_token.revoke             warning   warning   iam                  deletion
api_token.list               info      warning   api                  access
API-Token:Create             warning   warning   iam                  creation
ssh_key.add                  warning   warning   iam                  creation
service_account.create       warning   warning   iam                  user,creation
service_account.delete       warning   warning   iam                  user,deletion
oauth_app.create             warning   warning   iam                  change
webhook.create               warning   warning   configuration        creation
sso.enable                   warning   warning   iam,configuration    change
sso.update                   warning   warning   iam,configuration    change
sso.disable                  critical  critical  iam,configuration    change
saml.update                  warning   warning   iam,configuration    change
scim.user.create             warning   warning   iam                  user,creation
mfa.enable                   warning   warning   iam                  change
mfa.disable                  critical  critical  iam                  change
mfa.reset                    critical  critical  iam                  change
ip_allowlist.update          warning   warning   iam,configuration    change
ip_allowlist.disable         critical  critical  iam,configuration    change
organization.settings.update warning   warning   configuration        change
organization.update          info      warning   configuration        change
organization.read            info      warning   api                  access
organization.transfer        critical  critical  configuration        change
organization.delete          critical  critical  configuration        deletion
billing.update               warning   warning   configuration        change
billing.plan.change          warning   warning   configuration        change
payment.method.add           warning   warning   configuration        creation
subscription.cancel          warning   warning   configuration        change
billing.read                 info      warning   api                  access
project.create               info      warning   configuration        creation
project.read                 info      warning   api                  access
project.update               info      warning   configuration        change
project.delete               warning   warning   configuration        deletion
project.transfer             critical  critical  configuration        change
application.create           info      warning   configuration        creation
application.deploy           info      warning   package              installation
application.restart          info      warning   process              change
application.scale            info      warning   process              change
application.stop             info      warning   process              end
application.exec             warning   warning   process              change
application.delete           warning   warning   configuration        deletion
deployment.create            info      warning   package              installation
deployment.rollback          warning   warning   package              change
secret.create                warning   warning   configuration        creation
secret.read                  info      warning   api                  access
secret.reveal                warning   warning   api                  access
secret.update                warning   warning   configuration        change
secret.rotate                warning   warning   configuration        change
secret.delete                warning   warning   configuration        deletion
domain.add                   warning   warning   configuration        creation
domain.verify                warning   warning   configuration        change
domain.delete                warning   warning   configuration        deletion
certificate.create           warning   warning   configuration        creation
database.create              info      warning   configuration        creation
database.export              warning   warning   api                  access
backup.restore               warning   warning   configuration        change
audit.settings.update        critical  critical  iam,configuration    change
audit_log.delete             critical  critical  iam,configuration    deletion
sso.delete                   critical  critical  iam,configuration    deletion
retention.create             info      warning   iam,configuration    creation
audit_log.read               info      warning   api                  access
log_forwarding.disable       critical  critical  iam,configuration    change
retention.update             critical  critical  iam,configuration    change
something.nobody.knows       info      warning   configuration        change
"""


WHOLE: dict[str, Any] = {
    "timestamp": 0,
    "organization": {"id": "org-1"},
    "actor": {"type": "user", "id": "u-7", "name": "Ada", "email": "ada@example.com"},
    "action": "project.read",
    "resource": {"type": "project"},
    "status": "success",
}


def line(**changes: Any) -> tuple[Any, bytes]:
    return decode(json.dumps(WHOLE | changes).encode())


def judge(
    action: str, status: str = "success", resource: str = "project", *, by: Severities = BUILT_IN, **more: Any
) -> Judgement:
    return by.judge(*line(action=action, status=status, resource={"type": resource}, **more))


@pytest.mark.parametrize("row", CATALOGUE.strip().splitlines())
def test_the_catalogue(row: str) -> None:
    action, done, failed, category, kind = row.split()
    for status, expected in (("success", done), ("failure", failed)):
        found = judge(action, status, action.partition(".")[0])
        assert (found.severity, found.number, found.action) == (expected, EVENT_SEVERITY[expected], action.lower()), status
        assert (",".join(found.category), ",".join(found.type)) == (category, kind)
        assert (found.reason is None) == (expected == "info")


def test_the_catalogue_has_what_the_sample_does() -> None:
    assert {action for action, *_ in _ACTIONS} <= {row.split()[0] for row in CATALOGUE.strip().splitlines()}


@settings(deadline=None)
@given(st.text(min_size=1, max_size=50), st.sampled_from(["success", "failure"]), st.text(min_size=1, max_size=20))
def test_any_action_has_a_judgement_in_ecs_s_words(action: str, status: str, resource: str) -> None:
    found = judge(action, status, resource)
    allowed = {each for category in found.category for each in EXPECTED[category].split()}
    assert found.category
    assert found.type
    assert set(found.type) <= allowed


def test_what_our_agents_say_is_theirs_alone() -> None:
    assert judge("agent.gap", "failure", "stream").reason == "lines are missing or held up"
    assert judge("agent.halt", "failure", "stream").severity == "critical"
    assert judge("agent.heartbeat", "success", "agent").severity == "info"
    assert judge("agent.delete", "success", "agent").severity == "warning", "an agent of the organisation's own"


SELF = "a privileged role was granted by the actor to the actor"
ME, OTHER = {"type": "member", "id": "u-7"}, {"type": "member", "id": "u-8"}
ROLE = {"changes": [{"field": "role", "from": "viewer", "to": "Owner"}]}


@pytest.mark.parametrize(
    "changes",
    [
        {"action": "role.assign", "resource": ME, **ROLE},
        {"action": "role.assign", "resource": {"type": "member", "id": "ADA@example.com"}, **ROLE},
        {"action": "role.assign_owner", "resource": ME},
        {"action": "Role:Grant-Admin", "resource": ME},
        {"action": "member.promote", "resource": ME},
        {"action": "member.update", "resource": ME, "changes": [{"field": "member.newRole", "to": ["viewer", "org_admin"]}]},
        {"action": "member.update", "resource": ME, "changes": [{"field": "role", "from": {"name": "dev"}, "to": {"name": "admin"}}]},
        {"action": "member.update", "resource": ME, "changes": [{"field": "is_admin", "from": False, "to": True}]},
        {"action": "role.assign", "resource": {"type": "organization"}, "role": "admin", "target_id": "u-7"},
        {"action": "role.assign", "resource": {"type": "role", "id": "r-1", "name": "Administrator"}, "target": {"id": "u-7"}},
        {"action": "permission.update", "resource": {"type": "project"}, "grant": {"member": {"id": "u-7", "roles": ["owner"]}}, "member": "u-7"},
        {"action": "permission.update", "resource": {"type": "project"}, "data": {"member": {"id": "u-7", "roles": ["owner"]}}},
        {"action": "user.update", "resource": {"type": "user", "id": "u-7", "role": "superuser"}},
        {"action": "api_token.update", "resource": {"type": "api_token", "id": "u-7"}, "scopes": ["*:*"]},
        {"action": "role.assign", "resource": {"type": "service-account", "id": "u-7"}, **ROLE},
        {"action": "role.assign", "resource": {"type": "Service Account", "id": "u-7"}, **ROLE},
        {"action": "role.assign", "resource": {"type": "serviceAccount", "id": "u-7"}, **ROLE},
        {"action": "role.assign", "resource": {"type": "team-member", "id": "u-7"}, **ROLE},
        {"action": "role.assign", "resource": {"type": "API-Token", "id": "u-7"}, **ROLE},
        {"action": "role.assign", "resource": ME, "changes": [{"field": "New Role", "to": "super-user"}]},
    ],
)  # fmt: skip
def test_who_grants_himself_a_privilege_is_critical_however_it_is_said(changes: dict[str, Any]) -> None:
    found = BUILT_IN.judge(*line(**changes))
    assert (found.severity, found.reason) == ("critical", SELF)


@pytest.mark.parametrize(
    ("changes", "severity", "reason"),
    [
        ({"resource": OTHER, **ROLE}, "critical", "a role without limits was granted"),
        ({"resource": OTHER, "changes": [{"field": "role", "to": "admin"}]}, "warning", "an administrator's role was granted"),
        ({"resource": ME, "changes": [{"field": "role", "from": "owner", "to": "viewer"}]}, "warning", "permissions changed"),
        ({"resource": ME, "changes": [{"field": "role", "from": ["admin"], "to": ["admin", "dev"]}]}, "warning", "permissions changed"),
        ({"resource": ME, "changes": [{"field": "nickname", "to": "admin"}]}, "warning", "permissions changed"),
        ({"resource": ME, "actor": {"type": "user", "id": "u-9", "role": "owner"}}, "warning", "permissions changed"),
        ({"resource": {"type": "organization"}, "role": "admin", "user_id": "u-7"}, "warning", "an administrator's role was granted"),
        ({"resource": {"type": "api_token", "id": "t-1"}, "scopes": ["project:read"]}, "warning", "permissions changed"),
        ({"resource": {"type": "api_token", "id": "t-1"}, "scopes": ["*:*"]}, "critical", "a role without limits was granted"),
        ({"resource": OTHER, "role": "code_owner"}, "warning", "an administrator's role was granted"),
        ({"resource": ME, "status": "failure", **ROLE}, "critical", "an attempt to grant a privileged role failed"),
    ],
)  # fmt: skip
def test_a_grant_to_another_or_of_less_is_no_self_grant(changes: dict[str, Any], severity: str, reason: str) -> None:
    found = BUILT_IN.judge(*line(action="role.assign", **changes))
    assert (found.severity, found.reason) == (severity, reason)


@pytest.mark.parametrize(
    "role",
    ["super_admin", "Super Admin", "super-admin", "Organization Owner", "organisation-owner", "org-owner", "Org Owner", "super-user", "owner "],
)  # fmt: skip
def test_a_role_without_limits_is_known_however_it_is_written(role: str) -> None:
    for more in ({"changes": [{"field": "role", "to": role}]}, {"role": role}, {"role": {"from": "viewer", "to": role}}):
        assert judge("role.assign", resource="member", **more).reason == "a role without limits was granted"
    assert judge(f"role.assign {role}", resource="member").reason == "a role without limits was granted"
    assert judge(f"role.assign_{role} ", resource="member").reason == "a role without limits was granted"


@pytest.mark.parametrize(
    "action",
    ["role.revoke", "role.revoked", "role.remove", "role.unassign_admin", "Role:Un-Assign", "member.role.remove", "member.remove_role",
     "member.unassign_owner", "member.remove", "user.delete", "user.suspend", "member.demote", "role.de-promote",
     "member.remove_and_notify"],
)  # fmt: skip
def test_what_takes_away_grants_nothing(action: str) -> None:
    more = {"role": "owner", "changes": [{"field": "role", "to": "owner"}]}
    found = BUILT_IN.judge(*line(action=action, resource=ME, **more))
    assert found.reason in (None, "permissions changed", "membership changed")


@pytest.mark.parametrize(
    ("action", "more"),
    [
        ("role.reassign_owner", {}),
        ("role.regrant_owner", {}),
        ("member.remake_owner", {}),
        ("member.reassign_to_owner", {}),
        ("role.binding.delete_and_create", {"role": "owner"}),
        ("role.removed_and_re-assigned", {"role": "owner"}),
        ("member.suspend_cancelled", {"role": "owner"}),
    ],
)
def test_what_gives_again_grants(action: str, more: dict[str, Any]) -> None:
    assert judge(action, resource="member", **more).reason == "a role without limits was granted"


@pytest.mark.parametrize(
    "more",
    [
        {"role": {"from": "owner", "to": "viewer"}},
        {"role": {"old": "owner", "new": "viewer"}},
        {"roles": {"before": ["owner", "dev"], "after": ["dev"]}},
        {"roles": {"from": ["owner"], "to": ["owner", "dev"]}},
        {"old": {"role": "owner"}, "new": {"role": "viewer"}},
        {"data": {"oldValue": {"roles": [{"role": "owner"}]}}},
    ],
)
def test_what_a_role_was_before_is_not_granted(more: dict[str, Any]) -> None:
    assert BUILT_IN.judge(*line(action="member.update", resource=ME, **more)).reason == "membership changed"


def test_a_role_of_an_operator_s_rule_is_spelt_as_an_action_is(tmp_path: Path) -> None:
    text = '[[rule]]\naction = ["*"]\nrole = ["Project:Read-All"]\nseverity = "critical"\nreason = "everything"\n'
    severities = Severities.load(rule_file(tmp_path, text))
    assert judge("role.assign", role="project:read all", by=severities).reason == "everything"
    assert judge("role.assign", role="project.read_all", by=severities).reason == "permissions changed"


JSON = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "target", "id", "member", "x"]), inner, max_size=3),
    max_leaves=20,
)  # fmt: skip


@settings(deadline=None)
@given(JSON, JSON)
def test_whatever_a_grant_looks_like_there_is_a_judgement(one: Any, other: Any) -> None:
    more = {"role": one, "target": other, "changes": [{"field": "roles", "from": one, "to": other}, {"field": "role"}]}
    assert BUILT_IN.judge(*line(action="role.assign", **more)).severity in ("warning", "critical")


def test_a_deep_or_endless_grant_is_judged_all_the_same() -> None:
    deep = json.loads("[" * 900 + "]" * 900)
    assert BUILT_IN.judge(*line(action="role.assign", role=deep, target=deep)).severity == "warning"
    wide = [f"role-{number}" for number in range(100_000)]
    assert BUILT_IN.judge(*line(action="role.assign", roles=wide)).severity == "warning"


def rule_file(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "severity.toml"
    file.write_text(text)
    return file


def test_an_operator_s_rules_stand_before_the_built_in_ones(tmp_path: Path) -> None:
    text = '[[rule]]\naction = ["Project-Read", "project:read"]\nresource = ["Vault"]\nseverity = "critical"\nreason = "the vault"\n'
    severities = Severities.load(rule_file(tmp_path, text))
    assert judge("project.read", resource="vault", by=severities).reason == "the vault"
    assert judge("project.read", by=severities).severity == "info"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('severity = "fatal"', "'rule.0.severity'"),
        ('colour = "red"', "unknown key 'rule.0.colour'"),
        ("", "'rule.0.severity' is missing"),
        ('severity = "critical"', "'rule.0': critical without a reason; say why"),
        ('severity = "info"\ntarget = "self"', "'rule.0': target goes with role"),
        ('severity = "info"\nresource = [" "]', "'rule.0.resource': a glob that is blank"),
        ('severity = "info"\n[[kind]]\naction = ["a"]\ncategory = ["iam"]\ntype = ["start"]', "'kind.0': type 'start' does not go with iam"),
        ('severity = "info"\n[[kind]]\naction = ["a"]\ncategory = ["aim"]\ntype = ["start"]', "'kind.0': 'aim' is not a category"),
    ],
)  # fmt: skip
def test_a_malformed_rule_is_named_with_what_helps(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        Severities.load(rule_file(tmp_path, f'[[rule]]\naction = ["a"]\n{text}\n'))
    assert "severity.toml" in str(caught.value)
    assert "rule.0 is the first [[rule]]" in str(caught.value)


ORGANIZATIONS = """
[[organization]]
id = "bank-*"
[[organization.severity]]
action = ["project.read"]
severity = "critical"
reason = "nobody reads at the bank"
[[organization]]
id = "*"
[[organization.severity]]
action = ["project.read"]
status = "failure"
severity = "info"
"""


def organizations(tmp_path: Path) -> Path:
    file = tmp_path / "organizations.toml"
    file.write_text(ORGANIZATIONS)
    return file


def test_an_organization_s_own_rules_stand_before_all(tmp_path: Path) -> None:
    theirs = rule_file(tmp_path, '[[rule]]\naction = ["project.read"]\nseverity = "warning"\nreason = "everybody"\n')
    severities = Severities.load(theirs, Policies.load(organizations(tmp_path), "30d").severity)
    of = {name: judge("project.read", by=severities, organization={"id": name}) for name in ("bank-1", "BANK-2", "org-1")}
    assert {name: found.reason for name, found in of.items()} == {
        "bank-1": "nobody reads at the bank",
        "BANK-2": "nobody reads at the bank",
        "org-1": "everybody",
    }
    assert judge("project.read", "failure", by=severities).severity == "info"
    assert severities.table("bank-1") is severities.table("bank-9"), "organisations of one policy share a table and its cache"


def test_documents_have_the_severity_that_their_organization_says(tmp_path: Path) -> None:
    settings = EnrichmentSettings(organizations=organizations(tmp_path))
    builder = builder_of(settings, places_of(settings), retention="30d")
    events = [
        {"organization": {"id": "bank-1"}},
        {"organization": {"id": "org-1"}},
        {"organization": {"id": "org-1"}, "action": "role.assign", "resource": ME, **ROLE},
        {"organization": {"id": "org-1"}, "action": "role.assign", "resource": OTHER, "role": "viewer"},
        {"organization": {"id": "org-1"}, "action": "role.assign", "resource": ME, **ROLE, "reason": "ticket 7"},
    ]
    data = b"".join(json.dumps(WHOLE | event).encode() + b"\n" for event in events) * 2
    head = header(data, lines=10)
    block = Block.of(head, sender="", now_ms=0)
    documents = [json.loads(builder.build(block, decoded).body) for decoded in decode_block(head, data)]
    found = [(each["audit"]["severity"], each["log"]["level"], each["event"].get("reason")) for each in documents]
    assert found[:5] == found[5:] == [
        ("critical", "critical", "nobody reads at the bank"),
        ("info", "info", None),
        ("critical", "critical", SELF),
        ("warning", "warning", "permissions changed"),
        ("critical", "critical", "ticket 7; a privileged role was granted by the actor to the actor"),
    ]  # fmt: skip


def test_without_rules_of_their_own_organizations_cost_nothing() -> None:
    assert Policies.load(None, "30d").severity is None


def test_a_malformed_rule_of_an_organization_is_named(tmp_path: Path) -> None:
    file = tmp_path / "organizations.toml"
    file.write_text('[[organization]]\nid = "a"\n[[organization.severity]]\naction = ["a"]\nseverity = "critical"\n')
    with pytest.raises(ConfigurationError, match=r"'organization\.0\.severity\.0': critical without a reason"):
        Policies.load(file, "30d")


def test_the_table_that_holds_is_shown(tmp_path: Path) -> None:
    config = tmp_path / "indexer.toml"
    theirs = rule_file(tmp_path, '[[rule]]\naction = ["project.read"]\nseverity = "warning"\nreason = "everybody"\n')
    organizations(tmp_path)
    config.write_text(f'[enrichment]\nseverity_rules = "{theirs.name}"\norganizations = "organizations.toml"\n')
    run = CliRunner().invoke(command, ["--config", str(config), "--organization", "bank-1", "--json"], catch_exceptions=False)
    table = json.loads(run.stdout)
    assert [(each["from"], each["reason"]) for each in table[:2]] == [
        ("organizations.toml", "nobody reads at the bank"),
        ("severity.toml", "everybody"),
    ]
    assert table[-1] == {"from": "built in", "severity": "info", "action": ["*"]}
    shown = CliRunner().invoke(command, ["--config", str(config), "--organization", "bank-1"], catch_exceptions=False).stdout
    assert "nobody reads at the bank" in shown
    assert shown.index("nobody") < shown.index("everybody") < shown.index("failed authentication")
    one = CliRunner().invoke(command, ["--config", str(config), "--organization", "bank-1", "--action", "project.read"])
    assert "critical" in one.stdout
    assert "nobody reads" in one.stdout
    assert "everybody" not in one.stdout


def test_the_document_shows_the_rules_that_there_are() -> None:
    text = (Path(__file__).parents[2] / "docs/enrichment.md").read_text(encoding="utf-8")
    shown = text.partition("--markdown` -->\n")[2].partition("<!-- /made -->")[0]
    assert shown == markdown(rows(BUILT_IN, "")), "auditship severity --markdown makes it"
