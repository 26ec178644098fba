"""A small client of the Images API: what tests do often, without the two seconds of a command-line client.

Calls give the parsed answer and raise `requests.HTTPError` on a refusal, unless `raw` is used."""

import json
import uuid

import requests

from .base import eventually
from .glance import Glance
from .keystone import Keystone

PATCH_TYPE = "application/openstack-images-v2.1-json-patch"
STORE_KEY = "mimeo_store"  # the key of Mimeo's own store name in a location's metadata


class Images:
    def __init__(self, glance: Glance, keystone: Keystone, user: str = "admin"):
        self.glance, self.keystone, self.user = glance, keystone, user

    def as_user(self, user: str) -> "Images":
        return Images(self.glance, self.keystone, user)

    @property
    def project(self) -> str:
        return self.keystone.token(self.user).project

    def raw(self, method: str, path: str, **more) -> requests.Response:
        headers = {"X-Auth-Token": self.keystone.token(self.user).value, **more.pop("headers", {})}
        return requests.request(method, f"{self.glance.url}/v2{path}", headers=headers, timeout=120, **more)

    def call(self, method: str, path: str, **more):
        answer = self.raw(method, path, **more)
        if not answer.ok:
            raise requests.HTTPError(f"{method} {path}: {answer.status_code} {answer.text[:500]}", response=answer)
        return answer.json() if "json" in answer.headers.get("Content-Type", "") else answer.content

    # -- making --------------------------------------------------------------------------------------------------

    def record(self, name: str | None = None, **properties) -> str:
        """An image without data."""
        body = {"name": name or f"e2e-{uuid.uuid4().hex[:8]}", "disk_format": "raw", "container_format": "bare"}
        return self.call("POST", "/images", json={**body, **properties})["id"]

    def upload(self, image: str, data, store: str | None = None) -> None:
        """To the store of Glance's own that is named, or to the default one."""
        chosen = {"X-Image-Meta-Store": store} if store else {}
        headers = {"Content-Type": "application/octet-stream", **chosen}
        self.call("PUT", f"/images/{image}/file", data=data, headers=headers)

    def create(self, data, name: str | None = None, store: str | None = None, **properties) -> str:
        image = self.record(name, **properties)
        self.upload(image, data, store)
        return image

    def stage(self, image: str, data) -> None:
        self.call("PUT", f"/images/{image}/stage", data=data, headers={"Content-Type": "application/octet-stream"})

    def start_import(self, image: str, method: dict, stores: list[str] | None = None) -> None:
        body = {"method": method, **({"stores": stores, "all_stores_must_succeed": True} if stores else {})}
        self.call("POST", f"/images/{image}/import", json=body)

    # -- reading -------------------------------------------------------------------------------------------------

    def show(self, image: str) -> dict:
        return self.call("GET", f"/images/{image}")

    def download(self, image: str) -> bytes:
        return self.raw("GET", f"/images/{image}/file").content

    def exists(self, image: str) -> bool:
        return self.raw("GET", f"/images/{image}").status_code == 200

    def mimeo_locations(self, image: str) -> dict[str, str]:
        """Mimeo's store name → URL, for the locations that bear one. Two of one store are a failure."""
        found: dict[str, str] = {}
        for location in self.show(image).get("locations", []):
            store = location["metadata"].get(STORE_KEY)
            if store:
                assert store not in found, f"two locations for {store}: {self.show(image)['locations']}"
                found[store] = location["url"]
        return found

    def glance_stores(self, image: str) -> set[str]:
        """The stores of Glance's own that it says hold the image; no such key as long as there is none."""
        return set(self.show(image).get("stores", "").split(","))

    def wait_status(self, image: str, status: str, timeout: float = 60) -> dict:
        def check():
            shown = self.show(image)
            assert shown["status"] == status, shown["status"]
            return shown
        return eventually(check, timeout, f"image {image} is {status}")

    # -- changing ------------------------------------------------------------------------------------------------

    def patch_raw(self, image: str, operations: list[dict]) -> requests.Response:
        headers = {"Content-Type": PATCH_TYPE}
        return self.raw("PATCH", f"/images/{image}", data=json.dumps(operations), headers=headers)

    def patch(self, image: str, *operations: dict) -> dict:
        headers = {"Content-Type": PATCH_TYPE}
        return self.call("PATCH", f"/images/{image}", data=json.dumps(operations), headers=headers)

    def set(self, image: str, **properties) -> dict:
        return self.patch(image, *[{"op": "add", "path": f"/{k}", "value": v} for k, v in properties.items()])

    def add_location(self, image: str, url: str, **metadata) -> dict:
        return self.patch(image, {"op": "add", "path": "/locations/-", "value": {"url": url, "metadata": metadata}})

    def deactivate(self, image: str) -> None:
        self.call("POST", f"/images/{image}/actions/deactivate")

    def reactivate(self, image: str) -> None:
        self.call("POST", f"/images/{image}/actions/reactivate")

    def delete(self, image: str) -> None:
        self.call("DELETE", f"/images/{image}")

    def delete_all(self) -> None:
        """Every image of every project, protected and hidden ones too: the next test starts from nothing."""
        for hidden in ("false", "true"):
            query = f"/images?visibility=all&limit=500&os_hidden={hidden}"
            for image in self.call("GET", query)["images"]:
                if image["protected"]:
                    self.patch_raw(image["id"], [{"op": "replace", "path": "/protected", "value": False}])
                self.raw("DELETE", f"/images/{image['id']}")
