"""The draft for a review of one incident."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from agent import agent as facade
from api.schemas.incidents import EvidenceItem, Incident
from api.schemas.remedies import Secrets
from api.schemas.runs import Run
from api.schemas.wire import When, Wire, write_instant


class Moment(Wire):
    """Something that happened."""

    at: When
    text: str


class Task(Wire):
    """One task of a run, as Ansible told it."""

    name: str
    status: str
    message: str
    output: str
    diff: str


class Repair(Wire):
    """One run and what it did."""

    run: Run
    tasks: list[Task]


class IncidentReport(Wire):
    """A draft for a review without blame: what was observed, and nothing else."""

    host: str
    written: When
    title: str
    summary: str
    incident: Incident
    detected_after_seconds: float | None = Field(
        description="From the beginning of the failure to the look that saw it"
    )
    repaired_after_seconds: float | None = Field(
        description="From the confirmation to the proof of a repair"
    )
    downtime_seconds: float
    timeline: list[Moment]
    repairs: list[Repair]
    evidence: list[EvidenceItem]
    left: list[str] = Field(description="What is left for people")
    earlier_count: int = Field(description="How often it happened before")
    earlier: list[Incident] = Field(description="The last of them, newest first")
    markdown: str
    html: str = Field(description="A document that stands alone")

    @classmethod
    def of(cls, report: facade.IncidentReport, secrets: Secrets) -> Self:
        return cls.make(
            host=report.host,
            written=write_instant(report.written),
            title=report.title,
            summary=report.summary,
            incident=Incident.of(report.incident),
            detected_after_seconds=report.detected_after,
            repaired_after_seconds=report.repaired_after,
            downtime_seconds=report.downtime,
            timeline=[Moment.make(at=write_instant(m.at), text=m.text) for m in report.timeline],
            repairs=[
                Repair.make(
                    run=Run.of(each.run, secrets),
                    tasks=[
                        Task.make(
                            name=task.name,
                            status=task.status,
                            message=task.message,
                            output=task.output,
                            diff=task.diff,
                        )
                        for task in each.tasks
                    ],
                )
                for each in report.repairs
            ],
            evidence=[
                EvidenceItem.make(
                    when=each.stage,
                    taken=write_instant(each.taken),
                    title=each.evidence.title,
                    text=each.evidence.text,
                )
                for each in report.evidence
            ],
            left=report.left,
            earlier_count=report.earlier.count,
            earlier=[Incident.of(each) for each in report.earlier.incidents],
            markdown=facade.render_markdown(report),
            html=facade.render_page(report),
        )
