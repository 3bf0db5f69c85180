"""Protocols and mixtures that several tests share; the mid level once more, by the Hamiltonian's exponential."""

import jax.numpy as jnp
import numpy as np
import scipy.linalg

import pidjax as pid


def random_protocol(seed, rank, pieces=3, dim=2, *, start=None, stiffness=1.0, dtype=jnp.float64):
    """Every coefficient present; β positive, f₁ and A₁ neither symmetric nor commuting. `rank` is the maps' structure."""
    rng = np.random.default_rng(seed)
    shape = (pieces, *[dim] * rank)
    root = rng.normal(size=shape)
    beta = stiffness * (root @ root.transpose(0, 2, 1) if rank == 2 else np.abs(root))

    def pair():
        return jnp.array(0.5 * rng.normal(size=shape), dtype), jnp.array(0.5 * rng.normal(size=(pieces, dim)), dtype)

    return pid.piecewise(
        jnp.array(beta, dtype),
        edges=jnp.array([0.0, *np.sort(rng.uniform(0.1, 0.9, pieces - 1)), 1.0], dtype),
        centre=jnp.array(rng.normal(size=(pieces, dim)), dtype),
        force=pair(),
        gauge=pair(),
        linear=jnp.array(rng.normal(size=(pieces, dim)), dtype),
        constant=jnp.array(rng.normal(size=pieces), dtype),
        start=jnp.array(0.3 * rng.normal(size=dim), dtype) if start is None else start,
        noise_scale=jnp.ones((), dtype),
    )


def as_matrix(a, dim):
    a = np.asarray(a, dtype=float)
    return a if a.ndim == 2 else np.diag(np.broadcast_to(a, (dim,)))


def coefficients(protocol, piece, dim):
    """β, ν, V₁, V₀, (f₁, f₀), (A₁, A₀) of one piece, as NumPy matrices and vectors."""

    def field(pair):
        if pair is None:
            return np.zeros((dim, dim)), np.zeros(dim)
        return as_matrix(pair.matrix[piece], dim), np.asarray(pair.vector[piece], dtype=float)

    def vector(leaf):
        return np.zeros(dim) if leaf is None else np.asarray(leaf[piece], dtype=float)

    constant = 0.0 if protocol.constant is None else float(protocol.constant[piece])
    beta = as_matrix(protocol.beta[piece], dim)
    return (
        beta,
        vector(protocol.centre),
        vector(protocol.linear),
        constant,
        field(protocol.force),
        field(protocol.gauge),
    )


def log_green_by_flow(protocol, x, y, dim):
    """log G(0, x → 1, y) from the product of the pieces' Hamiltonian flows, in the precision form."""
    size = 2 * dim + 2
    flow, exponent = np.eye(size), 0.0
    for piece, duration in enumerate(np.diff(np.asarray(protocol.edges, dtype=float))):
        beta, centre, linear, constant, (f1, f0), (a1, a0) = coefficients(protocol, piece, dim)
        drift, push = f1 - a1, f0 - a0
        stiffness = beta + f1.T @ a1 + a1.T @ f1 - a1.T @ a1
        slope = linear - beta @ centre + f1.T @ a0 + a1.T @ f0 - a1.T @ a0
        rate = constant + centre @ beta @ centre / 2 + np.trace(a1) / 2 + f0 @ a0 - a0 @ a0 / 2
        h = np.zeros((size, size))
        h[:dim, :dim], h[:dim, dim:-2], h[:dim, -2] = drift, np.eye(dim), push
        h[dim:-2, :dim], h[dim:-2, dim:-2], h[dim:-2, -2] = stiffness, -drift.T, slope
        h[-1, :dim], h[-1, dim:-2] = slope, -push
        flow = scipy.linalg.expm(duration * h) @ flow
        exponent -= duration * (np.trace(drift) / 2 + rate)
    (p11, p12, e1), (_, p22, e2) = ((flow[i, :dim], flow[i, dim:-2], flow[i, -2]) for i in (slice(dim), slice(dim, -2)))
    inverse = np.linalg.inv(p12)
    quadratic = -x @ inverse @ p11 @ x / 2 + x @ inverse @ y - y @ p22 @ inverse @ y / 2
    affine = -(inverse @ e1) @ x - (e2 - p22 @ inverse @ e1) @ y
    row = flow[-1, dim:-2]
    exponent -= (flow[-1, -2] - row @ inverse @ e1) / 2
    return quadratic + affine + exponent - 0.5 * np.linalg.slogdet(2 * np.pi * p12)[1]


def line_mixture(dtype=jnp.float64):
    means, variances = jnp.array([[-2.0], [1.5]], dtype), jnp.array([0.16, 0.64], dtype)
    return pid.GaussianMixture.isotropic(means, variances, jnp.array([0.3, 0.7], dtype))


def plane_mixture():
    covariances = jnp.array([[[0.3, 0.1], [0.1, 0.2]], [[0.2, -0.05], [-0.05, 0.5]]])
    return pid.GaussianMixture(jnp.array([[-1.0, 0.5], [1.2, -0.3]]), covariances, jnp.array([0.4, 0.6]))


def rich_protocol():
    """Two pieces of matrix stiffness, force and gauge, none of which commute."""
    beta = jnp.array([[[2.0, 0.5], [0.5, 1.0]], [[0.5, -0.3], [-0.3, 3.0]]])
    force = jnp.array([[[0.2, 0.7], [-0.4, 0.1]], [[-0.3, 0.2], [0.5, 0.2]]]), jnp.array([[0.3, -0.2], [0.1, 0.4]])
    gauge = jnp.array([[[0.1, 0.6], [-0.5, 0.2]], [[0.2, -0.3], [0.4, -0.1]]]), jnp.array([[0.2, 0.1], [-0.3, 0.2]])
    return pid.piecewise(
        beta, centre=jnp.array([[0.3, 0.0], [0.5, -0.4]]), force=force, gauge=gauge, linear=jnp.full((2, 2), 0.3),
        constant=jnp.array([0.1, -0.2]), start=jnp.array([0.2, -0.1]), noise_scale=1.0,
    )  # fmt: skip
