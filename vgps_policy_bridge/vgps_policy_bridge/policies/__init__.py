"""Adapters, one module each. Importing one pulls in no model package; building the policy does."""
