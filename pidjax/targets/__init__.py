"""Targets: what the process ends on, each through its tilted law."""
