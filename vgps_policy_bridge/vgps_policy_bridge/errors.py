"""Named errors of the policy side. Their names travel over the policy server and into Episode messages."""


class PolicyError(RuntimeError):
    """A policy could not be found, built or asked; the message says what to do."""


class MissingExtraError(PolicyError):
    """An optional dependency is not installed."""

    def __init__(self, policy: str, extra: str, cause: BaseException):
        super().__init__(f'policy {policy!r} needs packages that are not installed ({cause}). Install them with '
                         f"`pip install 'vgps-policy-bridge[{extra}]'` (in a checkout: "
                         f"`pip install './vgps_policy_bridge[{extra}]'`), or run the policy in its own environment "
                         'with vgps-policy-server and select policy:=server')


class CandidatesError(PolicyError):
    """A policy returned candidates that break the contract: wrong shape, NaN or infinity, openness outside 0..1."""


class ObservationError(PolicyError):
    """An observation does not fit what the policy needs: shape, type, or a part that is missing."""
