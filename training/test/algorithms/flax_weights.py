"""Load recorded flax parameters into the torch networks of training."""
import numpy as np
import torch


def tree(archive, prefix):
    """Return {path: array} of the leaves under a prefix."""
    return {key[len(prefix):]: archive[key] for key in archive.files if key.startswith(prefix)}


def _tensor(array):
    return torch.from_numpy(np.array(array))


def _dense(state, name, flax, path):
    state[f'{name}.weight'] = _tensor(flax[f'{path}/kernel']).T.contiguous()
    state[f'{name}.bias'] = _tensor(flax[f'{path}/bias'])


def _norm(state, name, flax, path):
    state[f'{name}.weight'], state[f'{name}.bias'] = _tensor(flax[f'{path}/scale']), _tensor(flax[f'{path}/bias'])


def _conv(state, name, flax, path):
    state[f'{name}.weight'] = _tensor(flax[f'{path}/kernel']).permute(3, 2, 0, 1).contiguous()


def encoder_state(flax, prefix='encoder.'):
    """Return the encoder's state dictionary of the recorded leaves `encoder/encoder/...`."""
    state, root = {}, 'encoder/encoder/'
    _conv(state, f'{prefix}conv_init', flax, f'{root}conv_init')
    _norm(state, f'{prefix}norm_init', flax, f'{root}norm_init')
    n = sum(key.startswith(f'{root}ResNetBlock_') and key.endswith('Conv_0/kernel') for key in flax)
    for i in range(n):
        block, name = f'{root}ResNetBlock_{i}/', f'{prefix}blocks.{i}.'
        for j in range(2):
            _conv(state, f'{name}conv_{j}', flax, f'{block}Conv_{j}')
            _norm(state, f'{name}norm_{j}', flax, f'{block}MyGroupNorm_{j}')
        if f'{block}conv_proj/kernel' in flax:
            _conv(state, f'{name}conv_proj', flax, f'{block}conv_proj')
            _norm(state, f'{name}norm_proj', flax, f'{block}norm_proj')
        film = f'{root}FilmConditioning_{i}/'
        _dense(state, f'{prefix}films.{i}.multiplier', flax, f'{film}Dense_0')
        _dense(state, f'{prefix}films.{i}.shift', flax, f'{film}Dense_1')
    return state


def critic_state(flax):
    """Return CriticNetwork's state dictionary."""
    state = encoder_state(flax)
    for i in range(2):
        state[f'weights.{i}'] = _tensor(flax[f'network/Dense_{i}/kernel'])
        state[f'biases.{i}'] = _tensor(flax[f'network/Dense_{i}/bias'])
    _dense(state, 'last', flax, 'Dense_0')
    return state


def actor_state(flax):
    """Return the state dictionary of either actor."""
    state = encoder_state(flax)
    _dense(state, 'hidden.0', flax, 'network/Dense_0')
    _dense(state, 'hidden.2', flax, 'network/Dense_1')
    _dense(state, 'mean', flax, 'Dense_0')
    _dense(state, 'log_std', flax, 'Dense_1')
    return state


def value_state(flax):
    """Return ValueNetwork's state dictionary."""
    state = encoder_state(flax)
    _dense(state, 'hidden.0', flax, 'network/Dense_0')
    _dense(state, 'hidden.2', flax, 'network/Dense_1')
    _dense(state, 'last', flax, 'Dense_0')
    return state


def temperature_state(flax):
    """Return Temperature's state dictionary."""
    return {'parameter': _tensor(flax['lagrange'])}


STATES = {'critic': critic_state, 'actor': actor_state, 'value': value_state, 'temperature': temperature_state}


def load(modules, archive, prefix):
    """Fill modules (name -> network) from `<prefix>modules_<name>/...`."""
    for name, module in modules.items():
        module.load_state_dict(STATES[name](tree(archive, f'{prefix}modules_{name}/')))


def mismatch(module, name, archive, prefix):
    """Return the largest relative difference between a network and the leaves recorded after a step."""
    recorded = tree(archive, f'{prefix}modules_{name}/')
    own = module.state_dict()
    worst = 0.0
    expected = {}
    if name == 'temperature':
        expected = temperature_state(recorded)
    else:
        _dense(expected, 'last' if 'last.weight' in own else 'mean', recorded, 'Dense_0')
        if 'Dense_1/kernel' in recorded:
            _dense(expected, 'log_std', recorded, 'Dense_1')
        for i, path in enumerate(('network/Dense_0', 'network/Dense_1')):
            key = f'biases.{i}' if 'biases.0' in own else f'hidden.{2 * i}.bias'
            expected[key] = _tensor(recorded[f'{path}/bias'])
    for key, value in expected.items():
        worst = max(worst, float((own[key] - value).abs().max() / value.abs().max()))
    return worst
