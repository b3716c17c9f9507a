"""An MQTT broker and its login."""

from __future__ import annotations

from prefect.blocks.core import Block

from blocks.connections.mqtt import MqttConnection


class MqttBroker(MqttConnection, Block):
    """An MQTT 5 broker.

    Example:
        Send a message and wait until the broker has it:
        ```python
        from blocks.mqtt_broker import MqttBroker

        broker = MqttBroker.load("BLOCK_NAME")
        client = broker.get_client("orders-publisher")
        client.connect(broker.host, broker.port)
        client.loop_start()
        client.publish("orders", b"{}", qos=1).wait_for_publish(30)
        client.disconnect()
        client.loop_stop()
        ```
    """

    _block_type_name = "MQTT Broker"
    _block_type_slug = "mqtt-broker"
