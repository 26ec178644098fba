"""RabbitMQ, with an epmd, a node name, a cookie and directories of its own: a broker that the machine may already
run is not touched."""

import os
from pathlib import Path

from kombu import Connection

from .base import Server, free_port, listens, run

SCRIPTS = "/usr/lib/rabbitmq/bin"


class Epmd(Server):
    """Erlang's port mapper. Started here, in the foreground, since the one that Erlang starts by itself outlives
    the broker."""

    name = "epmd"

    def __init__(self, parent: Path):
        super().__init__(parent)
        self.port = free_port()

    def command(self):
        return ["epmd", "-port", self.port, "-address", "127.0.0.1"]

    def ready(self):
        return listens(self.port)


class RabbitMQ(Server):
    name = "rabbitmq"

    def __init__(self, parent: Path):
        super().__init__(parent)
        self.port = free_port()
        self.dist_port = free_port()
        self.epmd = Epmd(parent)
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        self.transport_url = f"rabbit://guest:guest@127.0.0.1:{self.port}/"
        (self.dir / "enabled_plugins").write_text("[].\n")
        (self.dir / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            # The machine is shared with compilers: an alarm on memory or disk would block publishers for no reason.
            "vm_memory_high_watermark.absolute = 2GB\n"
            "disk_free_limit.absolute = 10MB\n"
        )

    def env(self):
        return {
            **os.environ,
            "HOME": str(self.dir),
            "ERL_EPMD_PORT": str(self.epmd.port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "mimeo-e2e@localhost",
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "RABBITMQ_CONFIG_FILE": str(self.dir / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.dir / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(self.dir / "rabbitmq-env.conf"),
            "RABBITMQ_MNESIA_BASE": str(self.dir / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.dir / "log"),
            "RABBITMQ_SCHEMA_DIR": str(self.dir / "schema"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.dir / "config"),
            "RABBITMQ_PID_FILE": str(self.dir / "pid"),
            "RABBITMQ_LOGS": "-",
            # One scheduler busy-waiting less: Erlang's default burns a core that the tests need.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false +sbwt none +sbwtdcpu none +sbwtdio none +S 2:2",
        }

    def command(self):
        return [f"{SCRIPTS}/rabbitmq-server"]

    def start(self):
        self.epmd.start()
        super().start()

    def ready(self):
        if not listens(self.port):
            return False
        try:
            with self.connect() as connection:
                connection.connect()
            return True
        except (OSError, ConnectionError):
            return False

    def control(self, *arguments) -> None:
        """What the broker's administrator does."""
        run([f"{SCRIPTS}/rabbitmqctl", "--quiet", *arguments], env=self.env())

    def connect(self) -> Connection:
        return Connection(self.url, connect_timeout=5)

    def shut_down(self):
        self.stop()
        self.epmd.stop()

    def publish(self, body: str | bytes, **properties) -> None:
        """Any bytes to the exchange that Glance uses, as anybody on the broker could send them."""
        with self.connect() as connection:
            producer = connection.Producer()
            producer.publish(
                body, exchange="glance", routing_key="notifications.info",
                content_type=properties.pop("content_type", "application/json"),
                content_encoding=properties.pop("content_encoding", "utf-8"), **properties,
            )
