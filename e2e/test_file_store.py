"""A directory that a real web server shows is a store. Neither Glance nor Mimeo takes part, only the adapter."""

import pytest

from cloud.apache import Apache
from cloud.nginx import Nginx
from test_conformance import conforms


@pytest.mark.parametrize("kind", [Nginx, Apache])
def test_a_directory_that_a_web_server_shows_is_a_store(tmp_path, kind):
    # The web server's own user must get there.
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    server = kind(tmp_path, "web")
    server.start()
    try:
        conforms("store", "file", str(server.objects), server.url)
        assert not list(server.objects.iterdir())
    finally:
        server.stop()
