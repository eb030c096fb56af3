"""What acts in trials that run without ROS: policies and critics, loaded once and kept for all trials."""

from collections.abc import Callable

from vgps_bringup.trials.plan import Condition
from vgps_critic.steering import Steerer, SteeringConfig
from vgps_policy_bridge.policy import load_policy


class Actors:
    """Policies and steerers by condition."""

    def __init__(self, load_critic: Callable[[str], object] | None = None):
        """Take ``load_critic(name) -> Critic``; None where no condition names a critic."""
        self._load_critic = load_critic
        self._policies, self._critics = {}, {}

    def policy(self, condition: Condition):
        """Return the policy of a condition."""
        key = condition.policy, repr(sorted(condition.policy_options.items()))
        if key not in self._policies:
            self._policies[key] = load_policy(condition.policy, **condition.policy_options)
        return self._policies[key]

    def steerer(self, condition: Condition) -> Steerer:
        """Return a fresh Steerer; without critic it serves the controls."""
        if condition.critic and condition.critic not in self._critics:
            self._critics[condition.critic] = self._load_critic(condition.critic)
        # no deadline: nothing waits here; a simulated arm may well do what the plain policy says
        return Steerer(self._critics.get(condition.critic), SteeringConfig(
            beta=condition.beta, selection=condition.selection, fallback='first'))

    def close(self) -> None:
        """Close the policies that hold something open."""
        for policy in self._policies.values():
            getattr(policy, 'close', lambda: None)()
