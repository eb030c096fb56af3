"""`actor`: the policy that Cal-QL or IQL trains beside its critic."""
