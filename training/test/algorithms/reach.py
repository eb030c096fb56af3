"""Reach a goal in the plane: a task with a known optimum, re-ranked as on the robot.

x uniform in [-1, 1]^2 outside radius 0.2; x <- clip(x + 0.15 a, +-1), a in [-1, 1]^2; done inside radius 0.2; reward -1
per step, 0 on reaching; discount 0.98, at most 60 steps. Data: 400 episodes of a controller with noise and random
actions. Judged by taking the best (worst) of 32 uniform actions at every step, 200 starts.
Straight line: 3.7 mean steps; random: 49.5.

Measured, three seeds each: IQL 4.35-4.38 steps, Spearman 0.97-0.98; Cal-QL 4.42-4.46, 0.85-0.89; worst-of-32 never
arrives. With the paper's own target (half the squared error, target rate 0.005) Cal-QL needs 5.05, 0.66 (one seed).

    python test/algorithms/reach.py [iql cal-ql ...]   # three seeds of every algorithm, a minute each on an idle core
"""
import sys

import numpy as np
import torch
from scipy.stats import spearmanr
from state_task import make_learner, q_values, train

from vgps_training.algorithms.behaviour_values import SARSA, MonteCarlo, MonteCarloConfig, SARSAConfig
from vgps_training.algorithms.cal_ql import CalQL, CalQLConfig
from vgps_training.algorithms.iql import IQL, IQLConfig

STRIDE, RADIUS, LIMIT, DISCOUNT = 0.15, 0.2, 60, 0.98
RATE = 1e-3  # of Adam: 1,500 steps are few
SETUPS = {
    'iql': (IQL, IQLConfig(negative_proportion=0.0, target_rate=0.02)),
    'cal-ql': (CalQL, CalQLConfig(td_scale=1.0, target_rate=0.02, target_entropy=-2.0)),
    'cal-ql paper': (CalQL, CalQLConfig(target_entropy=-2.0)),
    'cal-ql expectation': (CalQL, CalQLConfig(regulariser='expectation', target_rate=0.02, target_entropy=-2.0)),
    'cql': (CalQL, CalQLConfig(calibrate=False, td_scale=1.0, target_rate=0.02, target_entropy=-2.0)),
    'sarsa': (SARSA, SARSAConfig(target_rate=0.02)),
    'monte-carlo': (MonteCarlo, MonteCarloConfig(target_rate=0.02)),
}


def starts(count, random):
    x = random.uniform(-1, 1, (8 * count, 2))
    return x[np.linalg.norm(x, axis=1) > RADIUS][:count]


def collect(episodes=400, seed=0):
    random = np.random.default_rng(seed)
    columns = {name: [] for name in ('state', 'next_state', 'action', 'next_action', 'reward', 'mask', 'returns')}
    for x in starts(episodes, random):
        epsilon, states, actions, reached = random.choice([0.2, 0.6, 1.0]), [x], [], False
        for _ in range(LIMIT):
            a = np.clip(-x / STRIDE, -1, 1)
            if random.random() < epsilon:
                a = random.uniform(-1, 1, 2)
            a = np.clip(a + random.normal(0, 0.1, 2), -1, 1)
            x = np.clip(x + STRIDE * a, -1, 1)
            actions.append(a)
            states.append(x)
            reached = np.linalg.norm(x) < RADIUS
            if reached:
                break
        n = len(actions)
        reward, mask = -np.ones(n), np.ones(n)
        if reached:
            reward[-1] = mask[-1] = 0
        returns, g = np.zeros(n), 0.0 if reached else -1 / (1 - DISCOUNT)
        for t in reversed(range(n)):
            g = returns[t] = reward[t] + DISCOUNT * mask[t] * g
        for name, values in (('state', states[:-1]), ('next_state', states[1:]), ('action', actions),
                             ('next_action', actions[1:] + actions[-1:]), ('reward', reward), ('mask', mask),
                             ('returns', returns)):
            columns[name] += list(values)
    return {name: torch.tensor(np.array(values), dtype=torch.float32) for name, values in columns.items()}


def rollout(learner, sign, seed=100, count=200, k=32):
    """Return (mean steps, success rate) when the best (sign 1) or worst (sign -1) of k uniform actions is taken."""
    random = np.random.default_rng(seed)
    x, steps, active = starts(count, random), np.full(count, LIMIT), np.ones(count, bool)
    for step in range(LIMIT):
        actions = random.uniform(-1, 1, (count, k, 2))
        q = sign * q_values(learner, torch.tensor(x, dtype=torch.float32), torch.tensor(actions, dtype=torch.float32))
        chosen = actions[np.arange(count), q.argmax(1).numpy()]
        x[active] = np.clip(x + STRIDE * chosen, -1, 1)[active]
        arrived = active & (np.linalg.norm(x, axis=1) < RADIUS)
        steps[arrived] = step + 1
        active &= ~arrived
    return steps.mean(), 1 - active.mean()


def rank_correlation(learner, seed=200, count=200, k=32):
    """Return the mean Spearman of Q against minus the distance to the goal after the action."""
    random = np.random.default_rng(seed)
    x, actions = starts(count, random), random.uniform(-1, 1, (count, k, 2))
    q = q_values(learner, torch.tensor(x, dtype=torch.float32), torch.tensor(actions, dtype=torch.float32)).numpy()
    distance = np.linalg.norm(np.clip(x[:, None] + STRIDE * actions, -1, 1), axis=-1)
    return float(np.mean([spearmanr(q[i], -distance[i]).statistic for i in range(count)]))


def evaluate(name, seed, steps=1500):
    """Return (best-of-32 mean steps, worst-of-32 success rate, rank correlation)."""
    kind, config = SETUPS[name]
    learner = make_learner(kind, config, action_dim=2, rate=RATE, seed=seed)
    train(learner, collect(seed=seed), steps, seed=seed)
    return rollout(learner, 1)[0], rollout(learner, -1)[1], rank_correlation(learner)


if __name__ == '__main__':
    torch.set_num_threads(1)
    for name in sys.argv[1:] or SETUPS:
        for seed in range(3):
            best, worst, correlation = evaluate(name, seed)
            print(f'{name:20s} seed {seed}: best-of-32 {best:5.2f} steps, worst-of-32 succeeds {worst:5.1%}, '
                  f'Spearman {correlation:.2f}', flush=True)
