"""The stores that Glance writes itself, beside its files: Ceph's block devices, S3 and Swift, in one node of Ceph.

`rbd1` and `s3_1` are what their names say; `rbd2` is another pool of the same cluster. Swift comes twice, since Glance
then writes other locations: `swift1` has its credentials in a file of references (`swift+config://`), `swift2` among its
options (`swift+http://user:key@`).
"""

import time
from pathlib import Path

from .ceph import SECOND_POOL, Ceph
from .conf import write_ini
from .glance import Glance
from .keystone import PROJECTS, SECRET, Keystone
from .radosgw import RadosGateway

SEGMENT = 64  # MB: a Swift object larger than this is in segments of this size
S3_PART = 10  # MB: an S3 object larger than twice this is written in parts of this size


class Storage:
    def __init__(self, parent: Path, keystone: Keystone):
        self.ceph = Ceph(parent)
        self.gateway = RadosGateway(self.ceph, keystone)
        self.keystone = keystone
        self.swift_references = parent / "ceph" / "swift-references.conf"
        self.swift_user = f"{PROJECTS['glance']}:glance"
        self.seconds = 0.0  # that the start has taken

    def start(self) -> None:
        begun = time.monotonic()
        try:
            self.ceph.start()
            self.gateway.prepare()
            self.gateway.start()
            self.gateway.populate()
        except BaseException:
            self.stop()
            raise
        write_ini(self.swift_references, {"ref1": {
            "user": self.swift_user, "key": SECRET, "auth_address": self.keystone.url,
            "user_domain_id": "default", "project_domain_id": "default",
        }})
        self.seconds = time.monotonic() - begun

    def stop(self) -> None:
        self.gateway.kill()
        self.ceph.stop()

    def remove_all(self) -> None:
        self.ceph.remove_all()
        self.gateway.remove_all()

    @property
    def glance(self) -> dict[str, dict]:
        """What is to be changed in Glance's options so that it has these stores too."""
        swift = {
            "swift_store_container": self.gateway.container, "swift_store_create_container_on_put": "true",
            "swift_store_large_object_size": SEGMENT, "swift_store_large_object_chunk_size": SEGMENT,
            "swift_store_region": "RegionOne",
        }
        return Glance.with_backends({
            "rbd1": ("rbd", {
                "rbd_store_pool": self.ceph.pool, "rbd_store_user": "glance", "rbd_store_ceph_conf": self.ceph.conf,
            }),
            "rbd2": ("rbd", {
                "rbd_store_pool": SECOND_POOL, "rbd_store_user": "glance", "rbd_store_ceph_conf": self.ceph.conf,
            }),
            "s3_1": ("s3", {
                "s3_store_host": self.gateway.url, "s3_store_bucket": self.gateway.bucket,
                "s3_store_access_key": self.gateway.access_key, "s3_store_secret_key": self.gateway.secret_key,
                "s3_store_bucket_url_format": "path", "s3_store_region_name": "us-east-1",
                "s3_store_large_object_size": 2 * S3_PART, "s3_store_large_object_chunk_size": S3_PART,
            }),
            "swift1": ("swift", {
                # In a store's section it has no default, and what is written without it is never found again.
                **swift, "swift_store_config_file": self.swift_references, "default_swift_reference": "ref1",
            }),
            "swift2": ("swift", {
                **swift, "swift_store_auth_address": self.keystone.url,
                "swift_store_user": self.swift_user, "swift_store_key": SECRET,
            }),
        })
