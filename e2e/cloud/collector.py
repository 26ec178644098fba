"""An OpenTelemetry collector: Rotel, from PyPI, which passes on what it is sent, in protobuf and gzip, over HTTP."""

from importlib.util import find_spec
from pathlib import Path

from .base import Server, free_port, listens


class Collector(Server):
    name = "collector"

    def __init__(self, parent: Path, passes_on_to: str, port: int):
        super().__init__(parent)
        self.port, self.grpc_port = port, free_port()
        self.passes_on_to = passes_on_to

    def command(self):
        return [
            Path(find_spec("rotel").origin).with_name("rotel-agent"), "start",
            f"--otlp-http-endpoint=127.0.0.1:{self.port}", f"--otlp-grpc-endpoint=127.0.0.1:{self.grpc_port}",
            "--exporter=otlp", f"--otlp-exporter-endpoint={self.passes_on_to}", "--otlp-exporter-protocol=http",
        ]

    def ready(self):
        return listens(self.port)
