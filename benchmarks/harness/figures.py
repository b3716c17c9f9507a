"""How figures are told: one line of values, latencies, and ratios."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def show(title: str, values: Mapping[str, Any]) -> None:
    """Print one line of figures."""
    print(f"{title}: " + ", ".join(f"{name} {value}" for name, value in values.items()), flush=True)


def median_and_p95(values: Sequence[float]) -> tuple[float, float]:
    """The middle, and what one of twenty exceeds."""
    if len(values) < 2:
        return values[0], values[0]
    return statistics.median(values), statistics.quantiles(values, n=20, method="inclusive")[-1]


def show_latencies(title: str, values_s: Sequence[float]) -> None:
    """Print median, p95 and slowest; nothing if nothing was measured."""
    if values_s:
        median_s, p95_s = median_and_p95(values_s)
        show(
            title,
            {
                "n": len(values_s),
                "median s": f"{median_s:.3f}",
                "p95 s": f"{p95_s:.3f}",
                "slowest s": f"{max(values_s):.3f}",
            },
        )


def show_ratios(rates: Mapping[str, float], unit: str) -> None:
    """Print rates, the project's first, and how many times each other one that is."""
    ours = next(iter(rates.values()))
    for number, (name, rate) in enumerate(rates.items()):
        ratio = f"   this project: {ours / rate:.3g} times that" if number else ""
        print(f"{name:16}{rate:10.2f} {unit}{ratio}", flush=True)
