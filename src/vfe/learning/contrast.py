"""Learning to recognise: the free energy of the true label against that of its rivals."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray


class Contrast(eqx.Module):
    """Adds α (F_true / T + ln Σ_l exp(−F_l / T)) to F: how much worse than its rivals the truth is.

    F_l is the free energy with the discrete `node` held at l. With T = 1 and every rival the term is
    −ln q(true label | x), the surprise of the label given the data: it sharpens recognition at the
    price of some evidence. F itself is always reported without it.

    **Arguments:** `node`: the observed discrete node; `weight`: α; `temperature`: T, the margin in
    nats that still counts; `rivals`: how many wrong labels are compared at each visit, drawn by
    their last F_l; `delay`: the share of the epochs before the term is switched on.

    **Example:** `vfe.learn(model, data, contrast=vfe.Contrast("label"), ...)`.
    """

    node: str = eqx.field(static=True)
    weight: float = eqx.field(static=True, default=10.0)
    temperature: float = eqx.field(static=True, default=1.0)
    rivals: int = eqx.field(static=True, default=2)
    delay: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        if self.weight < 0 or self.temperature <= 0 or self.rivals < 1 or not 0 <= self.delay <= 1:
            raise ValueError(
                f"Contrast: got weight={self.weight}, temperature={self.temperature}, "
                f"rivals={self.rivals}, delay={self.delay}; wanted weight ≥ 0, temperature > 0, at "
                "least one rival, and a delay between 0 and 1."
            )

    def choose(
        self, key: PRNGKeyArray, truth: Int[Array, ""], last: Float[Array, " states"]
    ) -> Int[Array, " chosen"]:
        """The true label, then rivals drawn without replacement, likelier where F_l was low."""
        score = -last / (0.5 * self.temperature)
        score = jnp.maximum(score - jnp.max(score), -6.0)
        score = score + jax.random.gumbel(key, score.shape)
        score = jnp.where(jnp.arange(score.shape[0]) == truth, jnp.inf, score)
        return jax.lax.top_k(score, 1 + self.rivals)[1]

    def term(self, totals: Float[Array, " chosen"]) -> Float[Array, ""]:
        """F_true / T + ln Σ_l exp(−F_l / T); the true label first."""
        scaled = totals / self.temperature
        return scaled[0] + jax.nn.logsumexp(-scaled)
