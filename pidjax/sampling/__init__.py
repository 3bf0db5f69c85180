"""Sampling: step rules, rollout, the host driver and its answer."""
