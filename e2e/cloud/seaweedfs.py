"""SeaweedFS, from PyPI: an S3 server that is not Ceph's, over HTTP and HTTPS."""

import json
import sys
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from .base import Server, free_port, listens


class SeaweedFS(Server):
    name = "seaweedfs"

    def __init__(self, parent: Path, pki: Path):
        super().__init__(parent)
        self.pki = pki
        self.ports = {
            name: free_port()
            for name in ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port",
                         "filer.port.grpc", "s3.port", "s3.port.grpc", "s3.port.https")
        }
        self.url = f"http://127.0.0.1:{self.ports['s3.port']}"
        self.https_url = f"https://127.0.0.1:{self.ports['s3.port.https']}"
        self.access_key, self.secret_key, self.bucket = "MIMEOACCESSKEY", "mimeo-secret-key", "images"

    def prepare(self) -> None:
        (self.dir / "data").mkdir()
        keys = {"accessKey": self.access_key, "secretKey": self.secret_key}
        owner = {"name": "mimeo", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List"]}
        (self.dir / "s3.json").write_text(json.dumps({"identities": [owner]}))

    def command(self):
        return [
            Path(sys.executable).with_name("weed"), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-dir={self.dir}/data", "-filer", "-s3", "-master.telemetry=false", "-volume.max=20",
            "-master.volumeSizeLimitMB=64", "-s3.port.iceberg=0", "-s3.port.lance=0",
            *(f"-{name}={port}" for name, port in self.ports.items()),
            f"-s3.config={self.dir}/s3.json", f"-s3.localSocket={self.dir}/s3.sock",
            f"-filer.localSocket={self.dir}/filer.sock",
            f"-s3.cert.file={self.pki}/server.pem", f"-s3.key.file={self.pki}/server.key",
        ]

    def ready(self):
        return listens(self.ports["s3.port"]) and listens(self.ports["s3.port.https"]) and self._has_a_bucket()

    def _has_a_bucket(self) -> bool:
        """Its parts find each other some seconds after they listen."""
        try:
            self.s3().create_bucket(Bucket=self.bucket)
        except (BotoCoreError, ClientError):
            return False
        return True

    def kill(self) -> None:
        super().kill()
        for port in self.ports.values():
            for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                socket.unlink()

    def s3(self):
        return boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
        )

    def left(self) -> list:
        """The objects of the bucket, and the uploads that nobody has ended."""
        objects = self.s3().list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return objects + self.s3().list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
