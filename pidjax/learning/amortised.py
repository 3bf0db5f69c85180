"""A loss over a family of targets p̃(·; c), told apart by a context c: one network learns to sample them all.

    L(θ) = E_c[ ℓ(r(θ, c); p̃(·; c)) ],      c ~ the law of contexts,    r: a step rule

with ℓ a loss of one member's paths. The target is a function of the context, and with it what stands in for it, its explicit
control, the place and scale of its unit problem: the network learns what these leave. A member that was never seen is then
sampled by r(θ, c) for the cost of one rollout, and E[W] = Z(c) exactly. Members are divided among the devices.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from .._doors.checks import check_count, check_kind
from .._doors.show import shown_fields
from ..process.grids import AbstractGrid
from ..process.protocol import Protocol
from ..sampling.problem import Problem
from ..sampling.rollout import keys_of_paths, spread
from ..sampling.rules import AbstractGaussianRule
from ..targets.base import AbstractTarget
from .losses import AbstractLoss, RelativeEntropy, held
from .regression import Regression


class Amortised(eqx.Module):
    """The mean of a loss over members of a family, drawn anew at each call: a loss of (parameters, key), for `descend`.

    Args:
        target: a function of a context to a target with a density.
        rule: a function of (parameters, context) to a Gaussian rule, as Corrected(Moment(), network.given(context)).
        context: a function of a key to a context: an array or a pytree of arrays, of the same shapes for every key.
        protocol: of all members; with the default one each is rescaled by itself.
        grid: of all members. What stands in for a target may be wider than it: give the signal-to-noise ratios at which it
            resolves, as log_snr_grid(20, low=…, high=…).
        loss: of one member; by default `RelativeEntropy()`. Its state, if it has one, begins anew at each call: a `Regression`
            takes its points from a `Refresh`.
        num_members, num_paths: contexts in a call, and paths of each.

    Raises:
        ValueError: arguments of another kind; a regression on one buffer; counts below 1; when called, a rule that is not
            Gaussian, and as `Problem`.

    Example:
        >>> from pidjax import Controlled, GaussianMixture, harmonic, uniform_grid
        >>> from pidjax.learning import adam, descend
        >>> family = Amortised(
        ...     lambda c: GaussianMixture.isotropic(c[None], 1.0),
        ...     lambda gain, c: Controlled(lambda t, x: gain * c),
        ...     lambda key: jax.random.normal(key, (2,)),
        ...     protocol=harmonic(0.0, noise_scale=1.0),
        ...     grid=uniform_grid(5),
        ... )
        >>> found = descend(family, jnp.array(0.0), key=jax.random.key(0), optimiser=adam(0.1, decay=100), num_iterations=100)
        >>> print(f"{found.parameters:.1f}")
        1.0
    """

    target: Callable[[Any], AbstractTarget]
    rule: Callable[[Any, Any], AbstractGaussianRule]
    context: Callable[[Key[Array, ""]], Any]
    protocol: Protocol
    grid: AbstractGrid
    loss: AbstractLoss
    members: Int[Array, " m"]
    num_paths: int = eqx.field(static=True)

    __repr__ = shown_fields

    def __init__(
        self,
        target: Callable[[Any], AbstractTarget],
        rule: Callable[[Any, Any], AbstractGaussianRule],
        context: Callable[[Key[Array, ""]], Any],
        *,
        protocol: Protocol,
        grid: AbstractGrid,
        loss: AbstractLoss | None = None,
        num_members: int = 32,
        num_paths: int = 16,
    ):
        check_kind("target", target, Callable, "a function of a context to a target")
        check_kind("rule", rule, Callable, "a function of (parameters, context) to a rule")
        check_kind("context", context, Callable, "a function of a key to a context")
        check_kind("protocol", protocol, Protocol, "harmonic(...), piecewise(...) or from_function(...)")
        check_kind("grid", grid, AbstractGrid, "log_snr_grid(...), uniform_grid(...) or at_times(...)")
        self.target, self.rule, self.context, self.protocol, self.grid = target, rule, context, protocol, grid
        self.loss = RelativeEntropy() if loss is None else loss
        check_kind("loss", self.loss, AbstractLoss, "RelativeEntropy(), LogVariance() or another")
        parts = jax.tree.leaves(self.loss, is_leaf=lambda node: isinstance(node, Regression))
        if any(isinstance(part, Regression) and part.buffer is not None for part in parts):
            raise ValueError(
                "loss has a Regression on a buffer, whose points are samples of one member; pass "
                "Regression(refresh=Refresh(every, num_points)), which draws each member's own"
            )
        self.members = spread(np.arange(check_count("num_members", num_members)))
        self.num_paths = check_count("num_paths", num_paths)

    def __call__(self, parameters: Any, key: Key[Array, ""]) -> Float[Array, ""]:
        def of_member(key):
            key_context, key_start, key_paths = jax.random.split(key, 3)
            context = self.context(key_context)
            prepared = Problem(self.target(context), self.protocol).prepare(self.grid)
            rule = self.rule(parameters, context)
            check_kind("rule(parameters, context)", rule, AbstractGaussianRule, "a Gaussian rule, as Corrected(...)")
            state = jax.lax.stop_gradient(self.loss.start(prepared, held(rule), key_start))
            return self.loss(prepared, rule, key_paths, jnp.arange(self.num_paths), state)[0]

        return jnp.mean(jax.vmap(of_member)(keys_of_paths(key, self.members)))
