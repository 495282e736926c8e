"""An audit as JUnit XML, which every CI system reads: one case for each broken target."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime

from agent.audit.result import Audit, Defect
from agent.audit.words import tell_defect, tell_more, tell_referrer, tell_verdict

#: What XML 1.0 cannot hold, however it is written (section 2.2).
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(audit: Audit) -> str:
    """One suite; its first case is the audit itself."""
    cases = 1 + len(audit.defects)
    failures = len(audit.found)
    suite = ET.Element(
        "testsuite",
        name=clean_xml(f"site audit of {audit.site}"),
        tests=str(cases),
        failures=str(failures),
        errors="0" if audit.complete else "1",
        skipped=str(cases - 1 - failures),
        time=f"{audit.ended - audit.began:.3f}",
        timestamp=datetime.fromtimestamp(audit.began, UTC).isoformat(timespec="seconds"),
    )
    whole = ET.SubElement(suite, "testcase", classname="audit", name="the whole site was asked")
    if not audit.complete:
        error = ET.SubElement(whole, "error", message=clean_xml(tell_verdict(audit)))
        error.text = clean_xml(audit.why)
    for defect in audit.defects:
        _add_case(suite, defect)
    out = ET.SubElement(suite, "system-out")
    out.text = clean_xml("\n".join((tell_verdict(audit), *audit.notes)))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, "unicode") + "\n"


def _add_case(suite: ET.Element, defect: Defect) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        classname=f"audit.{defect.kind}",
        name=clean_xml(f"{defect.rule}: {defect.target}" if defect.rule else defect.target),
    )
    if defect.known:
        ET.SubElement(case, "skipped", message=clean_xml(f"known: {defect.known}"))
        return
    failure = ET.SubElement(case, "failure", type=defect.kind, message=clean_xml(defect.why))
    lines = [tell_defect(defect), *([defect.hint] if defect.hint else [])]
    lines += [f"referred to by {tell_referrer(each)}" for each in defect.referrers]
    lines += [more] if (more := tell_more(defect)) else []
    failure.text = clean_xml("\n".join(lines))


def clean_xml(text: str) -> str:
    """Text without what XML cannot hold."""
    return _UNWRITABLE.sub("\ufffd", text)
