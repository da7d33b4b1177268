"""Promises of rule files: what is taken, and what is refused with file, rule and remedy, without stopping the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from auditship.cli import cli
from indexer.commands.rules import markdown_of
from indexer.detect.rule import Correlation
from indexer.detect.ruleset import BUILT_IN, Ruleset
from indexer.detect.samples import load
from indexer.detect.source import BYTES_MAX, RuleError, documents
from indexer.store.embedded.predicate import predicate
from indexer.store.query import parse

ROOT = Path(__file__).parents[2]
EVENTS: dict[str, Any] = {
    "title": "Secret read",
    "name": "secret-read",
    "logsource": {"product": "auditship", "service": "audit"},
    "detection": {"read": {"event.action": "secret.read"}, "condition": "read"},
}
COUNT: dict[str, Any] = {
    "title": "Many secrets read",
    "name": "many-secrets",
    "level": "high",
    "correlation": {
        "type": "event_count",
        "rules": ["secret-read"],
        "group-by": ["user.id"],
        "timespan": "1h",
        "condition": {"gte": 5},
    },
}


def detection(**read: Any) -> dict[str, Any]:
    return {**EVENTS, "detection": {"read": read, "condition": "read"}}


def count(**changes: Any) -> dict[str, Any]:
    ours = changes.pop("auditship", {})
    return {**COUNT, "auditship": ours, "correlation": {**COUNT["correlation"], **changes}}


def write(folder: Path, *rules: dict[str, Any], name: str = "own.yml") -> Ruleset:
    (folder / name).write_text("---\n".join(yaml.safe_dump(rule, sort_keys=False) for rule in rules))
    return Ruleset.load(folder)


def test_the_built_in_rules_can_all_be_used_and_say_what_they_are() -> None:
    found = Ruleset.load()
    assert found.problems == ()
    assert len(found.alerting()) >= 15
    tested = {name for case in load([BUILT_IN]) for name in case.fires}
    spared = {name for case in load([BUILT_IN]) for name in case.quiet}
    ids = [
        str(document.get("id"))
        for path in BUILT_IN.glob("*.yml")
        if ".samples." not in path.name
        for document in documents(path)
    ]
    assert len(set(ids)) == len(ids)
    for rule in found.alerting():
        about = rule.about
        assert about.description, about.name
        assert about.false_positives, about.name
        assert about.techniques, about.name
        assert about.name in tested, "has no sample on which it fires"
        assert about.name in spared, "has no sample on which it is quiet"


def test_the_table_in_the_documentation_is_that_of_the_rules() -> None:
    assert markdown_of([rule.about for rule in Ruleset.load().alerting()]) in (ROOT / "docs/detections.md").read_text()


def test_a_rule_of_one_s_own_stands_beside_the_built_in_ones(tmp_path: Path) -> None:
    found = write(tmp_path, EVENTS, COUNT)
    assert found.problems == ()
    rule = found.rules["many-secrets"]
    assert isinstance(rule, Correlation)
    assert (rule.count, rule.span_ms, rule.about.severity) == (5, 3_600_000, "critical")
    assert not found.rules["secret-read"].alerts
    assert {"many-secrets", "mass-deletion"} <= {each.about.name for each in found.alerting()}


def test_the_agents_record_is_looked_at_where_a_rule_asks_for_it_and_by_a_query_of_its_own(tmp_path: Path) -> None:
    own = {**EVENTS, "logsource": {"product": "auditship", "service": "agent"}, "detection": {"a": {"event.action": "agent.*"}}}
    found = write(tmp_path, {**own, "detection": {**own["detection"], "condition": "a"}})
    assert found.problems == ()
    chunks = found.chunks(["secret-read", "failed-login"])
    assert [(chunk.datasets, "agent.*" in chunk.text) for chunk in chunks] == [((), False), (("agent",), True)]


def test_agents_are_no_gateways_that_could_be_silent(tmp_path: Path) -> None:
    silence = {"group-by": ["audit.gateway"], "condition": {"lt": 1}, "auditship": {"silence": True}}
    assert write(tmp_path, EVENTS, count(**silence)).problems == ()
    own = {**EVENTS, "logsource": {"product": "auditship", "service": "agent"}}
    (problem,) = write(tmp_path, own, count(**silence)).problems
    assert "silence is that of gateways, not of agents" in str(problem)


def test_generate_makes_what_is_referred_to_alert_as_well(tmp_path: Path) -> None:
    assert write(tmp_path, EVENTS, count(generate=True)).rules["secret-read"].alerts


@pytest.mark.parametrize(
    ("rule", "message", "remedy"),
    [
        (detection(**{"event.action|re": "x.*"}), r"event\.action\|re", "wildcards"),
        (detection(**{"user.name|cased": "Ada"}), r"\|cased", "without regard to case"),
        (detection(**{"user.id|fieldref": "audit.resource.id"}), r"\|fieldref", "same"),
        (detection(**{"@timestamp|hour": 3}), r"\|hour", "Taken are"),
        (detection(**{"event.action|base64": "x"}), r"\|base64", "Taken are"),
        (detection(**{"|contains": "evil"}), "without a field", "Name the field"),
        (detection(**{"process.name": "x"}), "process.name", "mapping"),
        (detection(**{"event.ingested": "2026-01-01"}), "times are not compared", "timespan"),
        (detection(**{"user.name": ""}), "an empty value", "exists"),
        (detection(**{"user.name|contains": ""}), "an empty value", "exists"),
        ({**EVENTS, "detection": {"words": ["a", "b"], "condition": "words"}}, "without a field", "Name the field"),
        ({**EVENTS, "detection": {"read": {"user.id": "x"}, "condition": "other"}}, "", ""),
        ({**EVENTS, "detection": "all"}, "", "specification"),
        ({**EVENTS, "logsource": {"product": "windows"}}, "logsource", "product: auditship"),
        ({**EVENTS, "logsource": {"product": "windows", "service": "agent"}}, "logsource", "product: auditship"),
        ({**EVENTS, "logsource": {"product": "auditship", "service": "access"}}, "logsource", "service: agent"),
        ({**EVENTS, "logsource": {"product": "auditship", "service": ["agent"]}}, "logsource", "service: agent"),
        ({**EVENTS, "name": "Not A Name"}, "name", "name: failed-login-burst"),
        ({**EVENTS, "level": "grave"}, "grave", "critical"),
        ({**EVENTS, "auditship": {"colour": "red"}}, "not known", "reason"),
        ({**EVENTS, "auditship": {"reason": "{no.such.field}"}}, "no.such.field", "mapping"),
        ({**EVENTS, "auditship": {"where": {"full_moon": True}}}, "full_moon", "same"),
        ({**EVENTS, "auditship": {"where": {"network_unknown_to_creator": True}}}, "earlier event", "temporal_ordered"),
        ({**EVENTS, "auditship": {"silence": True}}, "correlation", ""),
        (count(type="value_sum", condition={"field": "user.id", "gte": 1}), "value_sum", "event_count"),
        (count(type="temporal", condition="secret-read and x"), "", ""),
        (count(condition={"lt": 3}), "lt: 3", "gte"),
        (count(condition={"gte": 10**9}), "gte", "gte"),
        (count(type="temporal_ordered", condition={"gte": 2}), "all of them", "Leave"),
        (count(timespan="3y"), "7 days", ""),
        (count(timespan="soon"), "soon", ""),
        (count(rules=["no-such-rule"]), "no-such-rule", "name"),
        (count(rules=["many-secrets"]), "itself", ""),
        (count(type="value_count"), "", ""),
        (count(**{"group-by": ["no.such.field"]}), "no.such.field", "mapping"),
        (count(auditship={"per_value_max": 3}), "per_value_max", ""),
        (count(auditship={"silence": True}), "silence", "audit.gateway"),
        ({"title": "x", "name": "x"}, "neither", "specification"),
        ({**EVENTS, "name": "mass-deletion"}, "mass-deletion.yml", "another name"),
        (detection(**{"event.action": [f"a{n}" * 20 for n in range(200)]}), "longer than", "two rules"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told_with_its_place_and_left_out(
    tmp_path: Path, rule: dict[str, Any], message: str, remedy: str
) -> None:
    (tmp_path / "a-good-one.yml").write_text(yaml.safe_dump({**EVENTS, "name": "good"}))
    rules = [rule] if "correlation" not in rule else [EVENTS, rule]
    found = write(tmp_path, *rules)
    assert len(found.problems) == 1, found.problems
    problem = found.problems[0]
    assert "own.yml" in problem.what
    assert message.replace("\\", "") in str(problem), str(problem)
    assert remedy in problem.hint
    assert found.rules["good"].alerts
    assert set(found.rules) == {*Ruleset.load().rules, "good"}


def test_a_file_that_needs_one_that_is_left_out_is_left_out_too(tmp_path: Path) -> None:
    write(tmp_path, detection(**{"no.such": 1}), name="events.yml")
    found = write(tmp_path, COUNT)
    assert ["events.yml" in found.problems[0].what, "own.yml" in found.problems[1].what] == [True, True]
    assert "many-secrets" not in found.rules


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x\n", "anchors and aliases"),
        ("a: &x 1\n", "anchors and aliases"),
        ("title: a\ntitle: b\n", "twice"),
        ("[" * 20_000, ""),
        ("title: !!python/object/apply:os.system [id]\n", ""),
        ("- a list\n", "not a mapping"),
        ("1: a number\n", "not a mapping"),
        ("title: \x00\n", ""),
        ("x" * (BYTES_MAX + 1), "larger than"),
        ("---\na: b\n" * 60, "more than"),
        ("? {a: b}\n: c\n", ""),
    ],
)
def test_yaml_that_could_hurt_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yml"
    path.write_text(text)
    with pytest.raises(RuleError, match=r"bad\.yml") as refused:
        documents(path)
    assert message in str(refused.value)


def test_negation_means_the_same_wherever_it_stands(tmp_path: Path) -> None:
    """Lucene takes a lone NOT in parentheses to find nothing; the queries of rules never hold one."""
    rule = {
        **EVENTS,
        "detection": {
            "a": {"user.id": "a"},
            "b": {"user.id": "b"},
            "c": {"user.email": None},
            "condition": "(not a and not b) or not c",
        },
    }
    found = write(tmp_path, rule)
    test = predicate(parse(found.rules["secret-read"].query), 0)  # type: ignore[union-attr]
    assert "(NOT" not in found.rules["secret-read"].query  # type: ignore[union-attr]
    assert test({"user": {"id": "x"}})
    assert test({"user": {"id": "a", "email": "x"}})
    assert not test({"user": {"id": "a"}})


def test_disabled_rules_make_no_alerts_and_others_may_still_refer_to_them() -> None:
    sigma_id = next(str(each["id"]) for each in documents(BUILT_IN / "mass-deletion.yml") if "correlation" in each)
    found = Ruleset.load(disabled=("new-network", sigma_id))
    names = {rule.about.name for rule in found.alerting()}
    assert not names & {"new-network", "mass-deletion"}
    assert "mfa-disabled-and-new-network" in names
    assert found.problems == ()


def test_the_command_lists_tests_and_tells_what_it_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "indexer.toml").write_text('[store]\npath = "store"\n[detections]\nrules = "rules"\n')
    config = ["--config", str(tmp_path / "indexer.toml")]
    write(tmp_path / "rules", EVENTS, COUNT)
    line = "{action: secret.read, ip: 203.0.113.9}"
    samples = tmp_path / "rules/own.samples.yml"
    samples.write_text(f"fires: [many-secrets]\nevents:\n  - {{repeat: 5, line: {line}}}\n")
    run = CliRunner()
    listed = run.invoke(cli, ["rules", "list", "--json", *config])
    assert '"name":"many-secrets"' in listed.output
    assert run.invoke(cli, ["rules", "test", *config, str(tmp_path / "rules")]).exit_code == 0
    samples.write_text(f"why: too few\nfires: [many-secrets]\nevents:\n  - {{repeat: 4, line: {line}}}\n")
    failed = run.invoke(cli, ["rules", "test", *config, str(tmp_path / "rules")])
    assert failed.exit_code == 1
    assert "own.samples.yml#1 (too few): many-secrets should have fired" in failed.output
    samples.write_text("fires: [many-secrets]\nevents:\n  - {line: {ip: nowhere}}\n")
    assert "case 1" in str(run.invoke(cli, ["rules", "test", *config, str(tmp_path / "rules")]).exception)
    (tmp_path / "rules/bad.yml").write_text("title: [")
    refused = run.invoke(cli, ["rules", "list", *config])
    assert refused.exit_code == 2
    assert "bad.yml" in refused.output
    assert "failed-login" in refused.output, "the others are there"
