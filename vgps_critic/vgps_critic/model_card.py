"""The README.md that travels with a checkpoint."""

TEMPLATE = """---
library_name: vgps
tags: [robotics, value-function, v-gps]
---
# Critic for value-guided policy steering

Q(s, a, l): how good end-effector action `a` is for instruction `l` when the camera shows `s`. The ensemble's minimum
re-ranks the action candidates of a generalist policy.

| | |
|---|---|
| content hash | `{digest}` |
| trained by | {algorithm}, {step} updates |
| data | {data} |
| network | ResNet{stages} + FiLM, {filters} filters, {members} members, {image}x{image} RGB |
| instruction encoder | `{text_encoder}` |
| discount | {discount}, success on the last {success_steps} steps of a demonstration |
| Q-values | discounted sum of -1 per step until success (0: now, {floor:.4g}: never); {bounds_of_values} |

## Actions

Physical end-effector delta in the frame `{frame}`, rule `{rule}`{source}.

| dimension | unit | maps to -1 | maps to +1 |
|---|---|---|---|
{bounds}

## Use

```python
import numpy as np
from vgps_critic import Critic, select
critic = Critic.load('this folder or hub id')
encoded = critic.encode(image, 'put the spoon on the towel')  # (H, W, 3) uint8 RGB
q_values = critic.score(encoded, actions)                     # actions (K, 7) physical -> (E, K)
choice = select(q_values, beta=0.0, rng=np.random.default_rng(0))
```

It knows only the robot, cameras and tasks of its data. It scores actions; it does not make a robot safe.
"""

DIMENSIONS = ('dx', 'dy', 'dz', 'droll', 'dpitch', 'dyaw', 'gripper')


def model_card(config, digest: str) -> str:
    """Return the Markdown card of a `CriticConfig`."""
    space, network = config.action_space, config.network
    rows = zip(DIMENSIONS, space.units, space.low, space.high)
    return TEMPLATE.format(
        digest=digest, algorithm=config.algorithm or 'not stated', step=config.step, data=config.data or 'not stated',
        stages=list(network.stage_sizes), filters=network.num_filters, members=network.num_members,
        image=network.image_size, text_encoder=config.text_encoder, discount=config.discount,
        success_steps=config.success_steps, floor=-1 / (1 - config.discount), frame=space.frame, rule=space.rule,
        source=f' ({space.source})' if space.source else '',
        bounds_of_values='cannot leave {:g} to {:g}'.format(*network.value_range) if network.value_range else
        'nothing keeps the network from leaving that range',
        bounds='\n'.join(f'| {name} | {unit} | {low:.6g} | {high:.6g} |' for name, unit, low, high in rows))
