"""``vgps-serve``: a steered policy behind openpi's protocol, for other evaluation suites."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from typing import Literal

import yaml

from vgps_bringup.commands import checks
from vgps_bringup.system.defaults import BETA, K
from vgps_msgs_py import command_line
from vgps_policy_bridge.errors import PolicyError


@dataclass
class Serve:
    """Serve policy and critic as one policy that speaks openpi's websocket protocol.

    Whatever talks to openpi's serve_policy.py (openpi-client, inspect-robots, vla-eval) is then steered: each request
    gets the chunk that the critic chose among K proposals, in metres, radians and openness.

    Example: vgps-serve --policy octo-small-1.5 --critic /models/vgps --k 50

    Then, on the client's side: openpi_client.websocket_client_policy.WebsocketClientPolicy('127.0.0.1', 8000)
    """

    policy: str = 'flow'
    """entry-point name of the policy (group vgps.policies)"""
    policy_options: str = '{}'
    """the policy's options as YAML"""
    critic: str = 'default'
    """checkpoint: folder, owner/name on the hub, 'default' (shipped) or 'untrained'"""
    k: int = K
    """candidates per frame, 1 .. 1000"""
    beta: float = BETA
    """temperature of the choice, at least 0; 0 takes the best candidate"""
    selection: Literal['value', 'first', 'random'] = 'value'
    """how a candidate is chosen: value: by the critic; first: the plain policy; random: uniformly"""
    image_key: str = 'observation/image'
    """key of the camera image in the client's requests, (H, W, 3) uint8 RGB"""
    state_key: str = 'observation/state'
    """key of the 7-D robot state in the client's requests"""
    host: str = '127.0.0.1'
    """address to listen on; there is no password, so use an SSH tunnel from other machines"""
    port: int = 8000
    """port to listen on, 0 .. 65535; 0 takes a free one"""
    seed: int = 0
    """seed of the first episode; the others count up from it"""


def _check(options: Serve) -> None:
    checks.policy(options.policy)
    checks.critic(options.critic)
    checks.candidates(options.k)
    checks.temperature(options.beta)
    checks.whole('--port', options.port, 0, 2**16 - 1)
    checks.whole('--seed', options.seed, 0, checks.LARGEST_SEED)
    from vgps_policy_bridge.server.server import is_loopback
    if not is_loopback(options.host):
        raise checks.ArgumentError(f'{options.host} can be reached from other machines; there is no password and no '
                                   'encryption: listen on 127.0.0.1 and use an SSH tunnel')


def main() -> None:
    """Command line."""
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
    options = command_line.read(Serve, 'vgps-serve')
    checks.or_exit('vgps-serve', lambda: _check(options))
    logging.basicConfig(level=logging.INFO, format='%(name)s: %(message)s')
    logging.getLogger('websockets').setLevel(logging.ERROR)
    from vgps_bringup.rejudging.critics import load_critic
    from vgps_bringup.system.steered_server import LOG, ServedPolicy, listen
    from vgps_critic.steering import Steerer, SteeringConfig
    from vgps_policy_bridge.proposals import build_policy
    with command_line.refusing('vgps-serve', PolicyError, OSError, yaml.YAMLError):
        policy = build_policy(options.policy, yaml.safe_load(options.policy_options))
        steerer = Steerer(load_critic(options.critic), SteeringConfig(
            beta=options.beta, selection=options.selection, deadline_ms=10000.0))
        served = ServedPolicy(policy, steerer, options.k, options.image_key, options.state_key, seed=options.seed)
        with listen(served, options.host, options.port) as server:
            LOG.info('policy %s steered by critic %s (K = %d, beta = %g) on ws://%s:%d; ready', options.policy,
                     options.critic, options.k, options.beta, *server.socket.getsockname()[:2])
            with contextlib.suppress(KeyboardInterrupt):
                server.serve_forever()


if __name__ == '__main__':
    main()
