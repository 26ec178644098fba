"""The gateway of Ceph: S3, and Swift with both of its ways to log in, Keystone's tokens and its own (TempAuth)."""

import json
import secrets

import boto3
import botocore.config
import requests
import swiftclient

from .base import Server, free_port, program, run
from .ceph import Ceph
from .keystone import SECRET, Keystone

USER = "mimeo"
MIN_PART = 25_000  # bytes: so that a small object can have many parts


class RadosGateway(Server):
    """With Keystone every project has an account of its own: `v1/AUTH_` and the project's id."""

    name = "radosgw"

    def __init__(self, ceph: Ceph, keystone: Keystone):
        super().__init__(ceph.dir)
        self.ceph, self.keystone = ceph, keystone
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.access_key, self.secret_key = "MIMEOACCESSKEY", "mimeo-secret-key"
        self.bucket = "images"
        self.host = "s3.mimeo.test"  # which no name server knows
        self.swift_url = f"{self.url}/swift/v1"
        self.container = "images"
        self.tempauth_url, self.tempauth_user, self.tempauth_key = f"{self.url}/auth/1.0", f"{USER}:swift", SECRET
        ceph.sections["client.radosgw"] = self._options()

    def _options(self) -> dict:
        return {
            "rgw_frontends": f"beast endpoint=127.0.0.1:{self.port}", "rgw_data": self.dir,
            "rgw_enable_apis": "s3, swift, swift_auth, admin, sts", "rgw_dns_name": self.host,
            "rgw_s3_auth_use_sts": "true", "rgw_sts_key": secrets.token_hex(8),
            "rgw_enable_usage_log": "false",
            "rgw_run_sync_thread": "false", "rgw_dynamic_resharding": "false", "rgw_thread_pool_size": 64,
            "rgw_gc_obj_min_wait": 5, "rgw_gc_processor_period": 5,  # what is deleted is soon gone
            "rgw_multipart_min_part_size": MIN_PART,
            "rgw_swift_account_in_url": "true", "rgw_swift_url": self.url,
            "rgw_keystone_url": self.keystone.url.removesuffix("/v3"), "rgw_keystone_api_version": 3,
            "rgw_keystone_admin_user": "admin", "rgw_keystone_admin_password": SECRET,
            "rgw_keystone_admin_project": "admin", "rgw_keystone_admin_domain": "Default",
            "rgw_keystone_accepted_roles": "admin, member", "rgw_keystone_token_cache_size": 100,
            # Else a bucket of S3 and a container of Swift could not have the same name.
            "rgw_keystone_implicit_tenants": "swift",
        }

    def command(self):
        binary = program("radosgw", "radosgw")
        return [binary, "-f", "-c", self.ceph.conf, "--name", "client.radosgw"]

    def ready(self):
        try:
            return requests.get(self.url, timeout=5).status_code == 200
        except (requests.ConnectionError, requests.Timeout):
            return False

    def prepare(self) -> None:
        """One user for S3 and for Swift's TempAuth; those of Keystone come by themselves."""
        self._admin("user", "create", "--uid", USER, "--display-name", USER,
                    "--access-key", self.access_key, "--secret-key", self.secret_key)
        self._admin("subuser", "create", "--uid", USER, "--subuser", self.tempauth_user, "--access", "full",
                    "--key-type", "swift", "--secret-key", self.tempauth_key)

    def populate(self) -> None:
        """The object store in Keystone's catalogue, a bucket and a container."""
        self.keystone.add_service("object-store", "swift", f"{self.swift_url}/AUTH_%(project_id)s")
        self.s3().create_bucket(Bucket=self.bucket)
        self.swift().put_container(self.container)

    def add_key(self, access_key: str, secret_key: str) -> None:
        """One more for the user of S3."""
        self._admin("key", "create", "--key-type", "s3", "--uid", USER,
                    "--access-key", access_key, "--secret-key", secret_key)

    def remove_key(self, access_key: str) -> None:
        self._admin("key", "rm", "--key-type", "s3", "--uid", USER, "--access-key", access_key)

    def set_quotas(self, size: int | None) -> None:
        """How many bytes the bucket, and the container, may have; `None`: as many as they like."""
        bucket = ("--quota-scope", "bucket", "--bucket", self.bucket)
        self._admin("quota", "set", *bucket, "--max-size", str(size or -1))
        self._admin("quota", "enable" if size else "disable", *bucket)
        self.swift().post_container(self.container, {"X-Container-Meta-Quota-Bytes": str(size or -1)})

    def _admin(self, *arguments):
        binary = program("radosgw-admin", "radosgw")
        run([binary, "-c", self.ceph.conf, "--name", "client.radosgw", *arguments])

    # -- what a client needs ---------------------------------------------------------------------------------------

    def s3(self):
        """boto3's client, as Glance and Mimeo are configured."""
        # A bucket is named in the path: no name server knows one of its own.
        config = botocore.config.Config(s3={"addressing_style": "path"})
        return boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1", config=config,
            aws_access_key_id=self.access_key, aws_secret_access_key=self.secret_key,
        )

    def keys_that_end(self) -> tuple[str, str, str]:
        """An access key, its secret and its session token: of a role that the user takes on."""
        user = {"AWS": [f"arn:aws:iam:::user/{USER}"]}
        may_take_it_on = {"Effect": "Allow", "Principal": user, "Action": ["sts:AssumeRole"]}
        may_do_all = {"Effect": "Allow", "Action": ["s3:*"], "Resource": "arn:aws:s3:::*"}
        trust, policy = (json.dumps({"Version": "2012-10-17", "Statement": [each]}) for each in (may_take_it_on, may_do_all))
        self._admin("role", "create", "--role-name", "writer", "--assume-role-policy-doc", trust)
        self._admin("role-policy", "put", "--role-name", "writer", "--policy-name", "all", "--policy-doc", policy)
        sts = boto3.client(
            "sts", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
        )
        found = sts.assume_role(RoleArn="arn:aws:iam:::role/writer", RoleSessionName="mimeo")["Credentials"]
        return found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"]

    def swift(self, user: str = "mimeo") -> swiftclient.Connection:
        """A connection by a token of Keystone to the account of the user's project, found in the catalogue."""
        env = self.keystone.os_env(user)
        return swiftclient.Connection(
            authurl=env["OS_AUTH_URL"], user=user, key=SECRET, auth_version="3",
            os_options={
                "project_name": env["OS_PROJECT_NAME"], "user_domain_id": "default", "project_domain_id": "default",
                "region_name": "RegionOne",
            },
        )

    def swift_tempauth(self) -> swiftclient.Connection:
        return swiftclient.Connection(self.tempauth_url, self.tempauth_user, self.tempauth_key, auth_version="1")

    # -- content ---------------------------------------------------------------------------------------------------

    def keys(self, prefix: str = "") -> list[str]:
        """The objects of the bucket."""
        pages = self.s3().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def uploads(self) -> list[dict]:
        """The multipart uploads that nobody has ended."""
        return self.s3().list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])

    def objects(self, prefix: str = "", container: str | None = None) -> list[str]:
        """The objects of the container in the service project's account, where Glance and Mimeo are."""
        _, found = self.swift().get_container(container or self.container, prefix=prefix, full_listing=True)
        return [each["name"] for each in found]

    def parts(self, upload: dict) -> list[dict]:
        """Of one of the uploads."""
        return self.s3().list_parts(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]).get("Parts", [])

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Of the container's objects."""
        _, found = self.swift().get_container(self.container, prefix=prefix, full_listing=True)
        return {each["name"]: each["bytes"] for each in found}

    def remove_all(self) -> None:
        """Everything in the bucket and in all containers of the service project; these stay, empty."""
        s3 = self.s3()
        for upload in self.uploads():
            s3.abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        for key in self.keys():
            s3.delete_object(Bucket=self.bucket, Key=key)
        swift = self.swift()
        for container in swift.get_account(full_listing=True)[1]:
            for name in self.objects(container=container["name"]):
                swift.delete_object(container["name"], name)
