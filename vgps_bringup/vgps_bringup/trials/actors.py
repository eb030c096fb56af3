"""What acts in trials that run without ROS: policies and critics, loaded once and kept for all trials."""

from collections.abc import Callable

from vgps_bringup.trials.plan import Condition
from vgps_critic import checkpoint
from vgps_critic.outlook import Outlook
from vgps_critic.steering import Steerer, SteeringConfig
from vgps_policy_bridge.policy import load_policy


class Actors:
    """Policies and steerers by condition."""

    def __init__(self, load_critic: Callable[[str], object] | None = None):
        """Take ``load_critic(name) -> Critic``; None where no condition names a critic."""
        self._load_critic = load_critic
        self._policies, self._critics = {}, {}
        self._outlooks, self._vetoes = {}, {}

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
        critic = self._critics.get(condition.critic)
        source = condition.outlook or condition.critic
        if source not in self._outlooks:
            on_disk = source not in ('', 'untrained') and critic is not None
            self._outlooks[source] = Outlook.load(checkpoint.locate(source)) if on_disk else None
        # no deadline: nothing waits here; a simulated arm may well do what the plain policy says
        steerer = Steerer(critic, SteeringConfig(**{'beta': condition.beta, 'selection': condition.selection,
                                                    'fallback': 'first', **condition.steering}),
                          self._outlooks[source])
        if critic is not None:  # asked once, not at every trial
            key = condition.critic, source
            self._vetoes[key] = steerer.veto = self._vetoes[key] if key in self._vetoes else steerer.examine()
        return steerer

    def close(self) -> None:
        """Close the policies that hold something open."""
        for policy in self._policies.values():
            getattr(policy, 'close', lambda: None)()
