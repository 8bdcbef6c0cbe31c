"""One set of enums and records: contract, pages, documents and code."""

from __future__ import annotations

from enum import StrEnum

import pytest

from reconciler.core import jobs, manifests, policy, status
from reconciler.records.events import EventKind
from reconciler.reports import model
from tests.contract.document import DOCS, NOT_YET, ROOT, SCHEMAS, operations, table, words

ENUMS = {row[0]: words(row[1]) for row in table("data-model.md", "## Enums")}
RECORDS = {row[0]: words(row[1]) for row in table("data-model.md", "## Records")}
IN_CODE: dict[str, type[StrEnum]] = {
    "EnvironmentStatus": status.EnvironmentStatus,
    "EnvironmentType": manifests.EnvironmentType,
    "NodeStatus": status.NodeStatus,
    "JobStatus": jobs.JobStatus,
    "JobType": jobs.JobType,
    "JobEventKind": EventKind,
    "PromotionPreset": manifests.PromotionPreset,
    "DriftStatus": status.DriftStatus,
    "ReconcileMode": policy.ReconcileMode,
    "ReportTrigger": model.ReportTrigger,
    "DriftSubjectStatus": model.SubjectStatus,
    "DriftOrigin": model.Origin,
}


def test_the_page_has_the_contracts_enums() -> None:
    assert {name: schema["enum"] for name, schema in SCHEMAS.items() if "enum" in schema} == ENUMS


@pytest.mark.parametrize("name", IN_CODE)
def test_the_code_has_the_contracts_values(name: str) -> None:
    assert [member.value for member in IN_CODE[name]] == ENUMS[name]


def test_a_release_document_takes_the_contracts_sources() -> None:
    schema = manifests.Release.model_json_schema()["properties"]["source_type"]
    assert schema["anyOf"][0]["enum"] == ENUMS["ReleaseSourceType"]


@pytest.mark.parametrize("name", RECORDS)
def test_the_page_has_the_contracts_records(name: str) -> None:
    assert list(SCHEMAS[name]["properties"]) == RECORDS[name]


@pytest.mark.parametrize(
    "name", ["EnvironmentStatus", "NodeStatus", "JobStatus", "DriftStatus", "TlsStatus", "ReportDeliveryStatus"]
)
def test_the_state_machines_know_every_state(name: str) -> None:
    page = (DOCS / "state-machines.md").read_text(encoding="utf-8")
    assert [value for value in ENUMS[name] if value not in page] == []


def test_the_page_of_job_types_has_each_once() -> None:
    assert [row[0] for row in table("job-types.md", "# Job types")] == ENUMS["JobType"]


def test_the_page_of_job_types_tells_the_status_that_the_code_makes() -> None:
    for job_type, _, told, *_ in table("job-types.md", "# Job types"):
        made = status.summarize(
            jobs.JobType(job_type), jobs.JobStatus.RUNNING, before=status.EnvironmentStatus.ACTIVE
        ).value
        assert told == (made if made != "active" else told), job_type
        assert (told in ENUMS["EnvironmentStatus"]) == (made != "active"), job_type


def test_the_traceability_page_has_every_operation_with_its_route() -> None:
    rows = table("contract-traceability.md", "# Contract traceability")
    ours = {operation.key for operation in operations() if operation.spec.get("x-trueup-addition")}
    told = {row[0].replace("/api", "", 1).replace(":id", "{id}"): row[1:] for row in rows}
    assert told.keys() == {operation.key for operation in operations()} - ours
    assert {key: row[0] for key, row in told.items()} == {
        operation.key: operation.spec["operationId"] for operation in operations() if operation.key not in ours
    }
    assert {key for key, row in told.items() if row[1] == "—"} == NOT_YET
    assert [row[1] for row in told.values() if row[1] != "—" and not (ROOT / row[1]).is_file()] == []
    assert {row[2] for row in told.values()} - {"none"} <= set(ENUMS["JobType"])


def test_the_guardrails_name_the_tests_that_there_are() -> None:
    named = {row[1] for row in table("contract-guardrails.md", "# Contract guardrails")}
    assert named == {f"tests/contract/{path.name}" for path in (ROOT / "tests" / "contract").glob("test_*.py")}
