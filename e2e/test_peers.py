"""The peers of the stores other than HTTP, each with its own client; and what Glance makes of the stores that it writes
itself. What is found here is in docs/glance.md."""

import hashlib
import json
import os
from dataclasses import dataclass
from typing import Callable

import pytest
import swiftclient

from cloud.images import Images
from cloud.storage import SEGMENT, Storage

MiB = 1 << 20
# What Glance calls the objects that it writes; `{}` is the image's id.
WRITTEN = {
    "rbd1": "rbd://{fsid}/images/{}/snap",
    "s3_1": "s3://{gateway}/images/{}",
    "swift1": "swift+config://ref1/images/{}",
    "swift2": "swift+http://service%3Aglance:secret@{keystone}/images/{}",
}


def url(storage: Storage, form: str, name: str) -> str:
    return form.format(
        name, fsid=storage.ceph.fsid, gateway=storage.gateway.url.removeprefix("http://"),
        keystone=storage.keystone.url.removeprefix("http://"),
    )


def everything(storage: Storage) -> set[str]:
    """The names of all that is stored."""
    return {*storage.ceph.images(), *storage.gateway.keys(), *storage.gateway.objects()}


# -- each with its own client ----------------------------------------------------------------------------------------


def test_rbd(storage, file_of):
    """With the key of Mimeo; a snapshot that is protected; and what is left of it all."""
    ceph, data = storage.ceph, os.urandom(5 * MiB + 512)
    ceph.rbd("import", "--no-progress", file_of(data), "one")
    ceph.rbd("snap", "create", "--no-progress", "one@snap")
    ceph.rbd("snap", "protect", "one@snap")
    ceph.rbd("create", "--size", "64M", "two")
    assert ceph.images() == ["one", "two"]
    assert [(s["name"], s["protected"]) for s in ceph.snapshots("one")] == [("snap", "true")]
    assert ceph.read("one", "snap") == data
    ceph.remove_all()
    assert ceph.images() == []


def test_rbd_with_a_wrong_key(storage):
    wrong = storage.ceph.run(
        "rbd", "--keyring", storage.ceph.keyrings["client.admin"], "ls", "images", client="mimeo", check=False
    )
    assert wrong.returncode != 0


def test_s3(storage):
    gateway, data = storage.gateway, os.urandom(6 * MiB)
    s3, where = gateway.s3(), {"Bucket": gateway.bucket, "Key": "one"}
    s3.put_object(**where, Body=data)
    assert s3.get_object(**where)["Body"].read() == data
    begun = s3.create_multipart_upload(Bucket=gateway.bucket, Key="two")["UploadId"]
    s3.upload_part(Bucket=gateway.bucket, Key="two", UploadId=begun, PartNumber=1, Body=data)
    assert (gateway.keys(), len(gateway.uploads())) == (["one"], 1)
    gateway.remove_all()
    assert (gateway.keys(), gateway.uploads()) == ([], [])


def test_swift_with_keystone(storage):
    """The account is found in the catalogue; a tenant has another account."""
    gateway, data = storage.gateway, os.urandom(MiB)
    swift = gateway.swift()
    assert swift.put_object(gateway.container, "one", data) == hashlib.md5(data).hexdigest()
    assert swift.get_object(gateway.container, "one")[1] == data
    assert gateway.objects() == ["one"]
    with pytest.raises(swiftclient.ClientException, match="404"):
        gateway.swift("alice").get_object(gateway.container, "one")


def test_swift_with_its_own_login(storage):
    swift = storage.gateway.swift_tempauth()
    swift.put_container("temporary")
    swift.put_object("temporary", "one", b"bytes")
    assert swift.get_object("temporary", "one")[1] == b"bytes"
    swift.delete_object("temporary", "one")
    swift.delete_container("temporary")


def test_sftp(sshd, ssh_agent, file_of, tmp_path):
    """By a key, by an agent, and by a password where the server has a user of its own."""
    data = os.urandom(3 * MiB)
    copy = tmp_path / "copy"
    ways = {"key": (None, None), "agent": (sshd.options("BatchMode=yes"), ssh_agent.client_env())}
    if sshd.password:
        ways["password"] = (sshd.with_password(), sshd.password_env())
    for way, (options, env) in ways.items():
        sshd.sftp(f"put {file_of(data)} {sshd.objects}/{way}", f"get {sshd.objects}/{way} {copy}",
                  options=options, env=env)
        assert copy.read_bytes() == data
    assert {path.name for path in sshd.objects.iterdir()} == set(ways)


def test_sftp_refuses(sshd, tmp_path):
    """A server that is not in known_hosts, and a client without the key."""
    sshd.sftp("pwd")
    with pytest.raises(RuntimeError, match="Host key verification failed"):
        sshd.sftp("pwd", options=["-o", f"UserKnownHostsFile={tmp_path}/none", *sshd.with_key()])
    with pytest.raises(RuntimeError, match="Permission denied"):
        sshd.sftp("pwd", options=sshd.options("BatchMode=yes", "IdentityFile=none", "IdentityAgent=none"))


def test_rsync(rsyncd, file_of, tmp_path):
    data = os.urandom(3 * MiB)
    rsyncd.client(file_of(data), rsyncd.url + "one")
    assert (rsyncd.objects / "one").read_bytes() == data
    rsyncd.client(rsyncd.url + "one", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    rsyncd.password_file.write_text("wrong\n")
    with pytest.raises(RuntimeError, match="auth failed"):
        rsyncd.client(file_of(data), rsyncd.url + "two")


def test_rsync_over_ssh(sshd, file_of):
    data = os.urandom(MiB)
    sshd.rsync(file_of(data), sshd.remote("one"))
    assert (sshd.objects / "one").read_bytes() == data


# -- Glance ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", WRITTEN)
def test_what_glance_writes(storage, images, store):
    """Its location's form; that it can be read, but not in part; and that nothing is left when the image is deleted."""
    data = os.urandom(20 * MiB)
    image = images.create(data, store=store)
    location = {"url": url(storage, WRITTEN[store], image), "metadata": {"store": store}}
    assert images.show(image)["locations"] == [location]
    assert images.download(image) == data
    part = images.raw("GET", f"/images/{image}/file", headers={"Range": "bytes=5-10"})
    assert part.status_code == 400, "a store that can be read in part by now: see docs/glance.md"
    assert everything(storage) == {image}
    if store == "rbd1":
        assert [(s["name"], s["protected"]) for s in storage.ceph.snapshots(image)] == [("snap", "true")]
    images.delete(image)
    assert everything(storage) == set()


def test_swift_segments_of_glance(storage, images):
    """Sent in chunks, so that Glance does not know the size beforehand: where it does, it announces a whole segment for
    the last one too, and then Swift waits for bytes that never come."""
    data = os.urandom((SEGMENT + 6) * MiB)
    image = images.create((data[n:n + MiB] for n in range(0, len(data), MiB)), store="swift2")
    assert storage.gateway.objects() == [image, f"{image}-00001", f"{image}-00002"]
    head = storage.gateway.swift().head_object("images", image)
    assert head["x-object-manifest"] == f"images/{image}-"
    assert images.download(image) == data
    images.delete(image)
    assert everything(storage) == set()


def rbd_image(storage: Storage, data: bytes) -> None:
    file = storage.ceph.dir / "by-hand"
    file.write_bytes(data)
    storage.ceph.rbd("import", "--no-progress", file, "by-hand")
    storage.ceph.rbd("snap", "create", "--no-progress", "by-hand@snap")
    storage.ceph.rbd("snap", "protect", "by-hand@snap")


def s3_object(storage: Storage, data: bytes) -> None:
    storage.gateway.s3().put_object(Bucket="images", Key="by-hand", Body=data)


def swift_object(storage: Storage, data: bytes) -> None:
    storage.gateway.swift().put_object("images", "by-hand", data)


def swift_dynamic(storage: Storage, data: bytes) -> None:
    swift = storage.gateway.swift()
    swift.put_object("images", "by-hand-00001", data[:MiB])
    swift.put_object("images", "by-hand-00002", data[MiB:])
    swift.put_object("images", "by-hand", b"", headers={"X-Object-Manifest": "images/by-hand-"})


def swift_static(storage: Storage, data: bytes) -> None:
    swift = storage.gateway.swift()
    segments = []
    for name, part in (("by-hand-1", data[:MiB]), ("by-hand-2", data[MiB:])):
        etag = swift.put_object("images", name, part)
        segments.append({"path": f"/images/{name}", "etag": etag, "size_bytes": len(part)})
    swift.put_object("images", "by-hand", json.dumps(segments), query_string="multipart-manifest=put")


@dataclass
class ByHand:
    """An object that another client wrote, and the location by which somebody tells Glance of it."""

    make: Callable[[Storage, bytes], None]
    form: str
    store: str | None = None  # metadata.store as it is sent
    shown: str | None = None  # metadata.store as Glance shows it; None is a refusal

    def register(self, storage: Storage, images: Images, image: str):
        metadata = {"store": self.store} if self.store else {}
        value = {"url": url(storage, self.form, "by-hand"), "metadata": metadata}
        return images.patch_raw(image, [{"op": "add", "path": "/locations/-", "value": value}])


MIMEO_USER = "service%3Amimeo:secret@{keystone}"
BY_HAND = {
    # Whose URL begins as the store's own do needs no metadata.store.
    "rbd": ByHand(rbd_image, WRITTEN["rbd1"], None, "rbd1"),
    "rbd-no-snapshot": ByHand(rbd_image, "rbd://{fsid}/images/{}/other"),
    "s3": ByHand(s3_object, WRITTEN["s3_1"], None, "s3_1"),
    "s3+http": ByHand(s3_object, "s3+http://{gateway}/images/{}", "s3_1", "s3_1"),
    "s3+http-no-store": ByHand(s3_object, "s3+http://{gateway}/images/{}"),
    "swift": ByHand(swift_object, WRITTEN["swift2"], None, "swift2"),
    "swift-other-user": ByHand(swift_object, f"swift+http://{MIMEO_USER}/images/{{}}", "swift1", "swift1"),
    "swift-other-user-no-store": ByHand(swift_object, f"swift+http://{MIMEO_USER}/images/{{}}"),
    "swift-no-user": ByHand(swift_object, "swift+http://{keystone}/images/{}", "swift2"),
    "swift-reference": ByHand(swift_object, WRITTEN["swift1"], "swift1"),
    "swift-dynamic": ByHand(swift_dynamic, WRITTEN["swift2"], None, "swift2"),
    "swift-static": ByHand(swift_static, WRITTEN["swift2"], None, "swift2"),
    # The URL's beginning counts for more than what is said.
    "swift-of-another-store": ByHand(swift_object, WRITTEN["swift2"], "swift1", "swift2"),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_registered_by_hand(cloud, storage, images, case):
    """Glance takes it, serves it, and with the image it deletes bits that it did not write; or it refuses it."""
    by_hand, data = BY_HAND[case], os.urandom(3 * MiB)
    by_hand.make(storage, data)
    image = images.create(data)
    answer = by_hand.register(storage, images, image)
    if by_hand.shown is None:
        assert answer.status_code == 400, answer.text
        assert "Invalid location" in answer.text
        return
    assert answer.status_code == 200, answer.text
    location = {"url": url(storage, by_hand.form, "by-hand"), "metadata": {"store": by_hand.shown}}
    assert images.show(image)["locations"][1] == location
    cloud.glance.take_away(image)
    assert images.download(image) == data
    images.delete(image)
    assert everything(storage) == set()


def test_credentials_in_an_s3_location_are_cut_off(storage, images):
    s3_object(storage, b"bytes")
    gateway, image = storage.gateway, images.create(b"bytes")
    form = f"s3://{gateway.access_key}:{gateway.secret_key}@{{gateway}}/images/{{}}"
    assert ByHand(s3_object, form).register(storage, images, image).status_code == 400
    assert ByHand(s3_object, form, "s3_1").register(storage, images, image).status_code == 200
    assert images.show(image)["locations"][1]["url"] == url(storage, WRITTEN["s3_1"], "by-hand")


def test_removing_an_rbd_location(storage, images):
    """With a clone of the snapshot it fails and all stays; without one the bits go."""
    data = os.urandom(MiB)
    image = images.create(data)
    rbd_image(storage, data)
    images.add_location(image, url(storage, WRITTEN["rbd1"], "by-hand"))
    storage.ceph.rbd("clone", "images/by-hand@snap", "images/child")
    remove = [{"op": "remove", "path": "/locations/1"}]
    assert images.patch_raw(image, remove).status_code == 500
    assert len(images.show(image)["locations"]) == 2
    storage.ceph.rbd("rm", "--no-progress", "child")
    assert images.patch_raw(image, remove).status_code == 200
    assert storage.ceph.images() == []
