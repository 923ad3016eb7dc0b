"""What a process shows at its metrics port, as a collector reads it."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families


class Scraped:
    """One look."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def values(self, name: str, **labels: str) -> Iterator[float]:
        for sample in self.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                yield sample.value

    def total(self, name: str, **labels: str) -> float:
        """Return the sum over all series of that name with these labels among theirs."""
        return sum(self.values(name, **labels))

    def labels(self, name: str, label: str) -> set[str]:
        """Return the values that a label has."""
        return {sample.labels[label] for sample in self.samples if sample.name == name}


def scrape(address: str) -> Scraped:
    """Look at ``host:port``."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:  # our own
        return Scraped(answer.read().decode())


def status(address: str, path: str) -> int:
    """Return what ``/healthz`` or ``/readyz`` says; 0 where nobody answers."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=20) as answer:  # our own
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0
