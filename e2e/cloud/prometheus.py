"""Prometheus itself, which reads metrics and fires alerts by the files that it is given."""

from pathlib import Path

import requests
import yaml

from .base import Server, free_port, listens, program


class Prometheus(Server):
    name = "prometheus"

    def __init__(self, parent: Path, config: dict, files: dict[str, str]):
        """`files` lie beside the configuration."""
        super().__init__(parent)
        self.port = free_port()
        for name, text in {**files, "prometheus.yml": yaml.safe_dump(config)}.items():
            (self.dir / name).write_text(text)

    def command(self):
        return [
            program("prometheus", "prometheus"), "--config.file=prometheus.yml", "--storage.tsdb.path=data",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]

    def ready(self):
        return listens(self.port) and requests.get(f"{self._url}/-/ready", timeout=5).ok

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _asked(self, path: str, **query: str):
        return requests.get(f"{self._url}/api/v1/{path}", query, timeout=5).json()["data"]

    def value(self, expression: str) -> float | None:
        """Of an expression that gives one sample, or none."""
        found = self._asked("query", query=expression)["result"]
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> set[tuple[str, str | None]]:
        """The alerts that fire, each with the store that it is about, if it is about one."""
        alerts = [alert["labels"] for alert in self._asked("alerts")["alerts"] if alert["state"] == "firing"]
        return {(labels["alertname"], labels.get("store")) for labels in alerts}
