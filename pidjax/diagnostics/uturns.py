"""U-turns against the signal-to-noise ratio K at which one turns: is the end new, of the same class, the same datum?

Back from y to a state x of ratio K and forward again to y', which is a draw of the tilted law as y is:

    P(same datum) = E Σ_i q_i²,     P(same class) = E Σ_c q_c²,     E|y' − y|² = 2 E|y − x̂|²:

by simulation here, without it in `transitions`.

Source: Sclocchi, Favero & Wyart, *A phase transition in diffusion models reveals the hierarchical nature of data*, PNAS 122
(2025).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from .._doors.checks import as_floating, as_points, check_key
from .._doors.show import shown
from ..exact import time_at_snr
from ..metrics import Estimate
from ..process.protocol import Protocol
from ..process.schedule import harmonic
from ..sampling.uturn import uturn
from ..targets.base import AbstractTarget
from ..targets.samples import Samples
from .average import average
from .prediction import nearest_rows


class UTurns(NamedTuple):
    """What `uturns` returns; each of shape (n,).

    Attributes:
        times, snr: where the paths turned.
        datum: P(y' is the datum y); None but of a data set. The share of new ends is what it lacks to one.
        label: P(y' is of the class of y); None without labels.
        change: E|y' − y|².
    """

    times: Float[Array, " n"]
    snr: Float[Array, " n"]
    datum: Estimate | None
    label: Estimate | None
    change: Estimate

    def __repr__(self):
        return shown("UTurns", **self._asdict())


def uturns(
    key: Key[Array, ""],
    target: AbstractTarget,
    points: Float[Array, "N d"],
    ratios: ArrayLike,
    *,
    protocol: Protocol | None = None,
) -> UTurns:
    """One U-turn of each point at each ratio.

    Args:
        target, points, protocol: as of `uturn`.
        ratios: K, shape (n,), in the user's units.

    Raises:
        ValueError: ratios of another shape, or not positive; as `uturn`.

    Example:
        >>> data = pid.Samples(jnp.array([[-1.0], [0.0], [5.0]]), labels=[0, 0, 1])
        >>> found = uturns(jax.random.key(0), data, jnp.tile(data.points, (200, 1)), [0.01, 1.0, 20.0])
        >>> [f"{share:.1f}" for share in found.datum.value], [f"{share:.1f}" for share in found.label.value]
        (['0.4', '0.7', '1.0'], ['0.6', '1.0', '1.0'])
    """
    check_key("key", key)
    ratios = as_floating("ratios", ratios)
    if ratios.ndim != 1 or ratios.size == 0:
        raise ValueError(f"ratios has shape {ratios.shape}; pass shape (n,), n at least 1")
    points = as_points("points", points, target.dim).astype(target.place().mean.dtype)
    protocol = harmonic() if protocol is None else protocol
    times = time_at_snr(target, protocol, ratios)
    turned = [
        uturn(jax.random.fold_in(key, number), target, points, t, protocol=protocol).samples
        for number, t in enumerate(times)
    ]
    weights = jnp.zeros(len(points), turned[0].dtype)

    def share(one, other):
        return average((one == other).astype(weights.dtype), weights)

    datum = label = None
    if isinstance(target, Samples):
        before, after = nearest_rows(target, points[:, None]), nearest_rows(target, jnp.stack(turned, axis=1))
        datum = share(after, before)
        label = None if target.labels is None else share(target.labels[after], target.labels[before])
    change = jnp.stack([jnp.sum((ends - points) ** 2, axis=-1) for ends in turned], axis=1)
    return UTurns(times, ratios, datum, label, average(change, weights))
