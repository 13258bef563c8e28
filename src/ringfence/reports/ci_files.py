"""Comparisons for build servers: JUnit XML and SARIF. Knows nothing of how they were computed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from ringfence.reports.comparison import Comparison
from ringfence.reports.gates import GateResult
from ringfence.reports.verdicts import verdict

MOST_ITEMS = 200
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(comparisons: Sequence[Comparison], gates: Sequence[GateResult], a: str, b: str) -> str:
    """One test case a gate and metric, and one a metric; those whose gate holds fail."""
    suite = ElementTree.Element(
        "testsuite",
        name="ringfence compare",
        tests=str(len(gates) + len(comparisons)),
        failures=str(sum(one.holds for one in gates)),
        errors="0",
    )
    for one in gates:
        name = _xml(f"{one.gate.text} [{one.comparison.name}]")
        case = ElementTree.SubElement(suite, "testcase", classname="ringfence.gate", name=name)
        if one.holds:
            broken = [
                f"{change.item} (seed {change.seed})"
                for change in one.comparison.changes
                if not change.fixed
            ]
            failure = ElementTree.SubElement(case, "failure", message=_xml(one.words))
            text = f"{verdict(one.comparison, a, b)}\nbroken:\n" + "\n".join(broken[:MOST_ITEMS])
            failure.text = _xml(text)
    for found in comparisons:
        case = ElementTree.SubElement(
            suite, "testcase", classname="ringfence.comparison", name=_xml(found.name)
        )
        ElementTree.SubElement(case, "system-out").text = _xml(verdict(found, a, b))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def sarif(
    comparisons: Sequence[Comparison],
    gates: Sequence[GateResult],
    a: str,
    b: str,
    artifact: str,
) -> dict[str, Any]:
    """SARIF 2.1.0: an error for every gate that holds, a note for every item that broke.

    Args:
        comparisons: all of them.
        gates: what became of `--fail-if`.
        a: name of the first model.
        b: name of the second.
        artifact: path of B's records, where results point.
    """
    results: list[dict[str, Any]] = [
        _result("gate", "error", f"{one.gate.text}: {one.words}", one.comparison.name, artifact)
        for one in gates
        if one.holds
    ]
    for found in comparisons:
        if not found.primary:
            continue
        kind = "cluster" if found.figure else "item"
        for change in [change for change in found.changes if not change.fixed][:MOST_ITEMS]:
            words = f"{found.name}: {kind} {change.item} (seed {change.seed}) was as wished under "
            place = f"{found.suite}/{change.item}"
            results.append(_result("broken-item", "note", f"{words}{a}, not {b}", place, artifact))
    rules = [
        {"id": "gate", "shortDescription": {"text": "A condition of --fail-if holds."}},
        {"id": "broken-item", "shortDescription": {"text": "An item got worse."}},
    ]
    driver = {"name": "ringfence", "rules": rules}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }


def _result(rule: str, level: str, text: str, place: str, artifact: str) -> dict[str, Any]:
    return {
        "ruleId": rule,
        "level": level,
        "message": {"text": text},
        "locations": [
            {
                "physicalLocation": {"artifactLocation": {"uri": artifact}},
                "logicalLocations": [{"fullyQualifiedName": place}],
            }
        ],
    }


def _xml(text: str) -> str:
    """Signs that XML cannot hold become the replacement character."""
    return _NOT_XML.sub("\ufffd", text)
