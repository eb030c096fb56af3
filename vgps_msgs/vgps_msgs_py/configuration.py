"""Say what a node runs with, so that a bag explains itself."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import yaml
from rclpy.node import Node

from vgps_msgs.msg import NodeConfiguration
from vgps_msgs_py import qos


class ConfigurationPublisher:
    """Publishes a node's parameters and model identity, latched, on ``configuration``."""

    def __init__(self, node: Node, package: str):
        self.node = node
        try:
            self.version = f'{package} {version(package)}'
        except PackageNotFoundError:
            self.version = package
        self.publisher = node.create_publisher(NodeConfiguration, 'configuration', qos.LATCHED_MANY)

    def publish(self, model: str = '', model_hash: str = '') -> None:
        """Publish the present values; call again after a change."""
        message = NodeConfiguration(node=self.node.get_name(), version=self.version, model=model,
                                    model_hash=model_hash)
        message.header.stamp = self.node.get_clock().now().to_msg()
        values = {name: _plain(p.value) for name, p in self.node.get_parameters_by_prefix('').items()}
        message.parameters = yaml.safe_dump(values, sort_keys=True)
        self.publisher.publish(message)


def _plain(value: Any) -> Any:
    return list(value) if hasattr(value, '__iter__') and not isinstance(value, str) else value
