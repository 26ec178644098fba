"""The parts of the cloud go away and come back in the middle of the work."""

import os
import threading

from cloud.base import eventually
from mimeo import NO_SCAN

MiB = 1 << 20


def test_a_token_that_expires_in_mid_copy(cloud, mimeo, images, faulty):
    """Tokens live 8 s, the copy takes longer, and registering it needs a new one."""
    cloud.keystone.reconfigured({"token": {"expiration": 8, "allow_expired_window": 0}})
    slow = faulty()
    slow.fault("PUT", "rate", MiB)
    mimeo.use(cloud.nginx[0], slow)
    mimeo.serve(store_defaults={"timeout": "20s"})
    data = os.urandom(16 * MiB)
    image = images.create(data)
    mimeo.wait_registered(image, timeout=120)
    mimeo.assert_complete(image, data)
    assert len(slow.requests("PUT", image)) == 1, "the expiry did not cost the copy"


def test_an_application_credential(cloud, mimeo, images):
    """The way to log in that operators prefer for services."""
    mimeo.credentials = cloud.keystone.os_env_application_credential()
    mimeo.serve()
    image = images.create(b"by application credential")
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, b"by application credential")


def test_clouds_yaml(cloud, mimeo, images):
    """A named cloud, with no OS_* variable but the file's place."""
    env = cloud.keystone.os_env("mimeo")
    (mimeo.dir / "clouds.yaml").write_text(f"""
clouds:
  replicated:
    region_name: RegionOne
    auth:
      auth_url: {env['OS_AUTH_URL']}
      username: {env['OS_USERNAME']}
      password: {env['OS_PASSWORD']}
      project_name: {env['OS_PROJECT_NAME']}
      user_domain_id: default
      project_domain_id: default
""")
    mimeo.credentials = {"OS_CLIENT_CONFIG_FILE": str(mimeo.dir / "clouds.yaml")}
    mimeo.serve(openstack={"cloud": "replicated", "interface": "internal"})
    image = images.create(b"by clouds.yaml")
    mimeo.wait_registered(image)


def test_glance_restarts_in_mid_copy(cloud, mimeo, images, faulty):
    """Glance is killed while Mimeo reads from it, and comes back."""
    slow = faulty()
    slow.fault("PUT", "rate", 4 * MiB)
    mimeo.use(*cloud.nginx[:2], slow)
    mimeo.serve()
    data = os.urandom(48 * MiB)
    image = images.create(data)
    eventually(lambda: slow.requests("PUT", image), 30, "the copy has begun")
    cloud.glance.kill()
    slow.heal()
    cloud.glance.start()
    mimeo.wait_registered(image, timeout=120)
    mimeo.assert_complete(image, data)


def test_glance_is_away_at_the_start(cloud, mimeo, images):
    """`serve` starts without Glance, says what is wrong, and works when it is there."""
    image = images.create(b"waiting")
    cloud.glance.stop()
    mimeo.serve()
    eventually(lambda: mimeo.overview()["trouble"], 30, "the status says that Glance is away")
    cloud.glance.start()
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, b"waiting")
    eventually(lambda: not mimeo.overview()["trouble"], 30, "and that all is well again")


def test_keystone_restarts(cloud, mimeo, images):
    mimeo.serve()
    first = images.create(b"before")
    mimeo.wait_registered(first)
    cloud.keystone.restart()
    second = images.create(b"after")
    mimeo.wait_registered(second)
    mimeo.assert_complete(second, b"after")


def test_rabbitmq_restarts(cloud, mimeo, images):
    """Mimeo is back on its queue by itself, and hears the next image, with no scan to help."""
    mimeo.serve(**NO_SCAN)
    cloud.rabbitmq.kill()
    cloud.rabbitmq.start()
    mimeo.wait_listening(60)
    data = os.urandom(MiB)
    image = images.create(data)
    mimeo.wait_registered(image)
    mimeo.assert_complete(image, data)


def test_rabbitmq_is_away_at_the_start(cloud, mimeo, images):
    """Without a broker the scan carries on; when it comes, Mimeo listens."""
    cloud.rabbitmq.stop()
    mimeo.serve()
    image = images.create(b"scanned")
    mimeo.wait_registered(image)
    assert mimeo.overview()["events"]["connected"] is False
    cloud.rabbitmq.start()
    mimeo.wait_listening(60)


def test_all_at_once(cloud, mimeo, images):
    """Broker and Glance restart together while images are made; those that Glance took are complete."""
    mimeo.serve()
    made: dict[str, bytes] = {}

    def create() -> None:
        for number in range(6):
            data = os.urandom(MiB + number)
            made[images.create(data)] = data

    client = threading.Thread(target=create)
    client.start()
    client.join()
    cloud.rabbitmq.kill()
    cloud.glance.kill()
    cloud.rabbitmq.start()
    cloud.glance.start()
    for image, data in made.items():
        mimeo.wait_registered(image, timeout=120)
        mimeo.assert_complete(image, data)
