"""Decompositions of small matrices: values and derivatives against NumPy and differences, under vmap, and many at once."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pidjax._maths import small


def batch(*shape):
    root = jax.random.normal(jax.random.key(0), (*shape, 2 * shape[-1]))
    return root @ jnp.swapaxes(root, -1, -2)


def test_values_whatever_the_leading_axes():
    matrices = batch(2, 3, 5)
    factor = np.linalg.cholesky(np.asarray(matrices))
    for computed in (small.cholesky(matrices), jax.vmap(jax.vmap(small.cholesky))(matrices)):
        np.testing.assert_allclose(computed, factor, atol=1e-12)
    inverse, log_determinant = jax.vmap(small.inverse_and_log_determinant)(matrices)
    np.testing.assert_allclose(inverse, np.linalg.inv(np.asarray(matrices)), atol=1e-12)
    np.testing.assert_allclose(log_determinant, np.linalg.slogdet(np.asarray(matrices))[1], rtol=1e-12)
    np.testing.assert_allclose(small.eigenvalues(matrices), np.linalg.eigvalsh(np.asarray(matrices)), rtol=1e-10)


@pytest.mark.slow
def test_derivatives_by_finite_differences():
    matrices, direction = batch(3, 4), batch(3, 4)[::-1]

    def value(step):
        moved = matrices + step * direction
        inverse, log_determinant = small.inverse_and_log_determinant(moved)
        spectrum = jnp.sum(jnp.sin(small.eigenvalues(moved)) * jnp.arange(4.0)[None])
        return jnp.sum(jnp.sin(small.cholesky(moved))) + jnp.sum(jnp.cos(inverse)) + jnp.sum(log_determinant) + spectrum

    slope = jax.grad(value)(0.0)
    np.testing.assert_allclose(slope, (value(1e-6) - value(-1e-6)) / 2e-6, rtol=1e-7)
    np.testing.assert_allclose(jax.jvp(value, (0.0,), (1.0,))[1], slope, rtol=1e-12)


def test_derivatives_of_equal_eigenvalues_are_finite():
    """Of I + sD, in ascending order: the eigenvalues of I are all one, those of D some order of its own."""
    direction = jnp.diag(jnp.array([0.3, -0.2, 0.5]))
    slopes = jax.jvp(small.eigenvalues, (jnp.eye(3),), (direction,))[1]
    np.testing.assert_allclose(jnp.sort(slopes), [-0.2, 0.3, 0.5], atol=1e-12)


@pytest.mark.extended
@pytest.mark.slow
def test_many_at_once_do_not_wait_for_each_other():
    """Nine batches in one program: with LAPACK's own batches two cores stop for ever."""
    script = """
import jax, jax.numpy as jnp
from pidjax._maths import small
def many(a):
    return [f(c * a) for c in (1, 2, 3) for f in (small.cholesky, small.inverse_and_log_determinant, small.eigenvalues)]
many, a = jax.jit(many), jnp.broadcast_to(2 * jnp.eye(48) + 0.1, (48, 48, 48))
for _ in range(20):
    jax.block_until_ready(many(a))
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)
