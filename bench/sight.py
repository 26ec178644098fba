"""When an image shows its locations: read from Glance's database, where they are the moment that Glance has them.

To ask Glance itself costs some 6 ms of CPU per request, taken on a small machine from the very work that is measured.
A query costs 0.2 ms, both ends together: at one in 20 ms, less than 1 % of a core. What was found is afterwards
confirmed by Glance's API, outside the measured time.
"""

import json
import time
from collections.abc import Callable

from cloud import Cloud
from cloud.images import STORE_KEY

PAUSE = 0.02  # seconds


class Sight:
    def __init__(self, cloud: Cloud):
        self.cloud = cloud
        self._database = cloud.mariadb.connect()
        self._database.select_db("glance")

    def mimeo_stores(self, image: str) -> set[str]:
        """The stores, by Mimeo's names, on which the image is registered."""
        return {metadata[STORE_KEY] for metadata in self._locations(image) if STORE_KEY in metadata}

    def glance_stores(self, image: str) -> set[str]:
        """The stores, by Glance's names, that hold the image; none before it is active."""
        if self._one("SELECT status FROM images WHERE id = %s", image) != "active":
            return set()
        return {metadata["store"] for metadata in self._locations(image) if "store" in metadata}

    def importing(self, image: str) -> bool:
        return bool(self._one(
            "SELECT COUNT(*) FROM image_properties WHERE image_id = %s AND name = 'os_glance_import_task' "
            "AND deleted = 0", image,
        ))

    def wait_mimeo(self, stores: dict[str, set[str]]) -> None:
        """Until each of these images is registered on its stores. That it ends at all is the watchdog's care."""
        waiting = dict(stores)
        while waiting:
            image, wanted = next(iter(waiting.items()))
            if wanted <= self.mimeo_stores(image):
                del waiting[image]
            else:
                time.sleep(PAUSE)

    def confirm_mimeo(self, stores: dict[str, set[str]]) -> None:
        for image, wanted in stores.items():
            assert wanted <= set(self.cloud.images.mimeo_locations(image)), f"Glance does not show {wanted} of {image}"

    def wait(self, check: Callable[[], bool]) -> None:
        while not check():
            time.sleep(PAUSE)

    def _locations(self, image: str) -> list[dict]:
        with self._database.cursor() as cursor:
            cursor.execute("SELECT meta_data FROM image_locations WHERE image_id = %s AND deleted = 0", (image,))
            return [json.loads(row[0] or "{}") for row in cursor.fetchall()]

    def _one(self, query: str, image: str):
        with self._database.cursor() as cursor:
            cursor.execute(query, (image,))
            row = cursor.fetchone()
            return row[0] if row else None
