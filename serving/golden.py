"""Answers that an archive carries for sentences of ours, and how far others may differ."""

from typing import Any

TOLERANCE = 1e-5


def problem(golden: list[dict[str, Any]], answers: list[dict[str, Any]]) -> str:
    """Say how ``answers`` differ from the ``golden`` ones, ``{"text", "scores"}``; else nothing."""
    for item, answer in zip(golden, answers, strict=True):
        if "scores" not in answer:
            return f"does not answer: {answer.get('message', 'no reason given')}"
        expected, got = item["scores"], answer["scores"]
        if set(got) != set(expected):
            return "knows other labels than the export"
        worst = max(abs(got[label] - expected[label]) for label in expected)
        if not worst <= TOLERANCE:
            return f"differs from the export by {worst:.2g}"
    return ""
