"""Shared by the tests: the one way a sampled number is held against a truth."""

import numpy as np


def assert_within(estimate, truth, standard_error, sigmas=4):
    """|estimate − truth| ≤ sigmas · standard error, element by element."""
    deviation = np.abs(np.asarray(estimate) - np.asarray(truth)) / np.asarray(standard_error)
    assert np.all(deviation <= sigmas), f"off by {np.max(deviation):.2f} standard errors; allowed {sigmas}"
