"""One network, learned by every library that is installed: one small class each.

Every class takes a task and the parameters to begin with; `step(rows)` makes one training step on those
rows of the data and returns something to wait for; `parameters()` returns the weights and biases now. The
feed-forward pass is the same in all. Their energies are not: labels are scored by the cross-entropy, by
half the squared error in ngclearn, which has no categorical cell; a hidden level's mean is φ(W z + b) in
fabricpc and pcx, W φ(z) + b in ngclearn and vfe.
"""

import dataclasses
import importlib.util
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

Parameters = list[tuple[Any, Any]]  # weights (inputs, outputs) and biases (outputs,), layer by layer
FOUND_IN = ("fabricpc", "ngclearn", "pcx", "vfe")
LEARNING_RATE = 1e-3


@dataclasses.dataclass(frozen=True)
class Task:
    """Data on the device, and the settings that all share."""

    sizes: tuple[int, ...]
    x: Any
    y: Any
    batch: int
    steps: int
    rate: float


class Backpropagation:
    """Equinox and optax."""

    def __init__(self, task: Task, begin: Parameters) -> None:
        layers = []
        for (w, b), key in zip(begin, jax.random.split(jax.random.key(0), len(begin)), strict=True):
            layer = eqx.nn.Linear(*w.shape, key=key)
            values = (jnp.asarray(w).T, jnp.asarray(b))
            layers.append(eqx.tree_at(lambda l: (l.weight, l.bias), layer, values))
        optimiser = optax.adam(LEARNING_RATE)

        def loss(layers: list[Any], x: Any, y: Any) -> Any:
            def one(x: Any, y: Any) -> Any:
                for layer in layers[:-1]:
                    x = jnp.tanh(layer(x))
                return -jax.nn.log_softmax(layers[-1](x))[y]

            return jax.vmap(one)(x, y).mean()

        @eqx.filter_jit
        def step(layers: Any, memory: Any, x: Any, y: Any, rows: Any) -> Any:
            update, memory = optimiser.update(eqx.filter_grad(loss)(layers, x[rows], y[rows]), memory)
            return eqx.apply_updates(layers, update), memory

        self._task, self._step = task, step
        self._state = layers, optimiser.init(eqx.filter(layers, eqx.is_array))

    def step(self, rows: Any) -> Any:
        self._state = self._step(*self._state, self._task.x, self._task.y, rows)
        return eqx.filter(self._state, eqx.is_array)

    def parameters(self) -> Parameters:
        return [(layer.weight.T, layer.bias) for layer in self._state[0]]


class FabricPC:
    """fabricpc: a graph of Linear nodes and its own compiled training step."""

    def __init__(self, task: Task, begin: Parameters) -> None:
        from fabricpc.core.activations import SoftmaxActivation, TanhActivation
        from fabricpc.core.energy import CrossEntropyEnergy
        from fabricpc.core.inference import InferenceSGD
        from fabricpc.core.topology import Edge
        from fabricpc.graph_assembly import TaskMap, graph
        from fabricpc.graph_initialization import initialize_params
        from fabricpc.nodes import Linear
        from fabricpc.training import make_train_step

        nodes = [Linear(shape=task.sizes[:1], name="x")]
        nodes += [
            Linear(shape=(size,), name=f"z{i}", activation=TanhActivation())
            for i, size in enumerate(task.sizes[1:-1], 1)
        ]
        last = {"activation": SoftmaxActivation(), "energy": CrossEntropyEnergy()}
        nodes += [Linear(shape=task.sizes[-1:], name="y", **last)]
        structure = graph(
            nodes=nodes,
            edges=[Edge(source=a, target=b.slot("in")) for a, b in pairwise(nodes)],
            task_map=TaskMap(x=nodes[0], y=nodes[-1]),
            inference=InferenceSGD(eta_infer=task.rate, infer_steps=task.steps),
        )
        parameters = initialize_params(structure, jax.random.key(0))
        held = {n.name: parameters.nodes[n.name] for n in nodes}
        for (w, b), node in zip(begin, nodes[1:], strict=True):
            weights = dict.fromkeys(held[node.name].weights, jnp.asarray(w))
            held[node.name] = held[node.name]._replace(weights=weights, biases={"b": jnp.asarray(b)[None]})
        parameters = parameters._replace(nodes=held)
        optimiser = optax.adam(LEARNING_RATE)
        self._task, self._names = task, [n.name for n in nodes[1:]]
        self._step = make_train_step(structure, optimiser, algorithm="pc")
        self._state = parameters, optimiser.init(parameters)

    def step(self, rows: Any) -> Any:
        batch = {"x": self._task.x[rows], "y": self._task.y[rows]}
        *state, _, _ = self._step(*self._state, batch, jax.random.key(0))
        self._state = tuple(state)
        return self._state

    def parameters(self) -> Parameters:
        held = [self._state[0].nodes[name] for name in self._names]
        return [(next(iter(h.weights.values())), h.biases["b"].reshape(-1)) for h in held]


class Pcx:
    """pcx: an energy module with a vode at every level, and an optimiser for activities and for weights."""

    def __init__(self, task: Task, begin: Parameters) -> None:
        import pcx.functional as pxf
        import pcx.nn as pxnn
        import pcx.predictive_coding as pxc
        import pcx.utils as pxu

        class Network(pxc.EnergyModule):
            def __init__(self) -> None:
                super().__init__()
                self.layers = [pxnn.Linear(*w.shape) for w, _ in begin]
                self.vodes = [pxc.Vode() for _ in begin[:-1]] + [pxc.Vode(pxc.ce_energy)]
                self.vodes[-1].h.frozen = True

            def __call__(self, x: Any, y: Any) -> Any:
                for layer, vode in zip(self.layers[:-1], self.vodes[:-1], strict=True):
                    x = vode(jnp.tanh(layer(x)))
                self.vodes[-1](self.layers[-1](x))
                if y is not None:
                    self.vodes[-1].set("h", y)
                return self.vodes[-1].get("u")

        model = Network()
        for layer, (w, b) in zip(model.layers, begin, strict=True):
            layer.nn.weight.set(jnp.asarray(w).T)
            layer.nn.bias.set(jnp.asarray(b))
        per_image = pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))

        @pxf.vmap(per_image, in_axes=(0, 0), out_axes=0)
        def forward(x: Any, y: Any, *, model: Any) -> Any:
            return model(x, y)

        @pxf.vmap(per_image, in_axes=(0,), out_axes=(None, 0), axis_name="batch")
        def energy(x: Any, *, model: Any) -> Any:
            output = model(x, None)
            return jax.lax.psum(model.energy(), "batch"), output

        free = pxu.M_hasnot(pxc.VodeParam, frozen=True).to((False, True))
        of_activities = pxf.value_and_grad(free, has_aux=True)(energy)
        of_weights = pxf.value_and_grad(pxu.M(pxnn.LayerParam).to((False, True)), has_aux=True)(energy)

        @pxf.jit()
        def step(x: Any, y: Any, *, model: Any, slow: Any, fast: Any) -> None:
            model.train()
            with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
                forward(x, y, model=model)
            fast.init(pxu.M_hasnot(pxc.VodeParam, frozen=True)(model))
            for _ in range(task.steps):
                with pxu.step(model, clear_params=pxc.VodeParam.Cache):
                    _, gradient = of_activities(x, model=model)
                fast.step(model, gradient["model"])
            fast.clear()
            with pxu.step(model, clear_params=pxc.VodeParam.Cache):
                _, gradient = of_weights(x, model=model)
            slow.step(model, gradient["model"], scale_by=1.0 / task.batch)

        with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
            forward(jnp.zeros((task.batch, task.sizes[0])), None, model=model)
            fast = pxu.Optim(lambda: optax.sgd(task.rate))
            slow = pxu.Optim(lambda: optax.adam(LEARNING_RATE), pxu.M(pxnn.LayerParam)(model))
        self._task, self._model = task, model
        self._step = lambda x, y: step(x, y, model=model, slow=slow, fast=fast)

    def step(self, rows: Any) -> Any:
        self._step(self._task.x[rows], jax.nn.one_hot(self._task.y[rows], self._task.sizes[-1]))
        return self.parameters()

    def parameters(self) -> Parameters:
        return [(layer.nn.weight.get().T, layer.nn.bias.get()) for layer in self._model.layers]


class NgcLearn:
    """ngclearn: rate cells, error cells and Hebbian synapses in a context; its processes, compiled as one.

    The feedback synapses are given the transposed weights at every training step.
    """

    def __init__(self, task: Task, begin: Parameters) -> None:
        from ngclearn import Context, MethodProcess
        from ngclearn.components import GaussianErrorCell, HebbianSynapse, RateCell, StaticSynapse
        from ngclearn.utils.distribution_generator import DistributionGenerator as Draw
        from ngcsimlib.global_state import stateManager

        depth, batch = len(begin), {"batch_size": task.batch}
        with Context("Network"):
            cells, errors, down, up = [], [], [], []
            for i, size in enumerate(task.sizes):
                inner = 0 < i < depth
                time_constant, curve = (1.0 / task.rate, "tanh") if inner else (0.0, "identity")
                cells.append(RateCell(f"z{i}", n_units=size, tau_m=time_constant, act_fx=curve, **batch))
            for i, (w, _) in enumerate(begin):
                errors.append(GaussianErrorCell(f"e{i}", n_units=w.shape[1], **batch))
                settings = {"weight_init": Draw.constant(0.0), "bias_init": Draw.constant(0.0), **batch}
                adam = {"eta": LEARNING_RATE, "optim_type": "adam", "sign_value": -1.0, "w_bound": 0.0}
                down.append(HebbianSynapse(f"w{i}", shape=w.shape, **adam, **settings))
                up.append(StaticSynapse(f"v{i}", shape=w.shape[::-1], **settings))
            for i in range(depth):
                cells[i].zF >> down[i].inputs
                down[i].outputs >> errors[i].mu
                cells[i + 1].z >> errors[i].target
                cells[i].zF >> down[i].pre
                errors[i].dmu >> down[i].post
                errors[i].dmu >> up[i].inputs
                if i > 0:
                    up[i].outputs >> cells[i].j
                    errors[i - 1].dtarget >> cells[i].j_td
            advance, evolve = MethodProcess("advance"), MethodProcess("evolve")
            for part in (*up[1:], *cells, *down, *errors):
                advance = advance >> part.advance_state
            for part in down:
                evolve = evolve >> part.evolve
        weights, biases = [w.weights.root for w in down], [w.biases.root for w in down]
        transposed = [v.weights.root for v in up]
        state = dict(stateManager.state)
        for name, bias, (w, b) in zip(weights, biases, begin, strict=True):
            state |= {name: jnp.asarray(w), bias: jnp.asarray(b)[None]}

        @jax.jit
        def step(state: dict[str, Any], x: Any, y: Any) -> dict[str, Any]:
            state = state | {v: state[w].T for v, w in zip(transposed, weights, strict=True)}
            state |= {cells[0].j.root: x, cells[-1].j.root: y}
            z = x
            for i in range(depth - 1):
                mean = z @ state[weights[i]] + state[biases[i]]
                state |= {cells[i + 1].z.root: mean, errors[i].dtarget.root: jnp.zeros_like(mean)}
                state |= {errors[i].dmu.root: jnp.zeros_like(mean)}
                z = jnp.tanh(mean)
            state[errors[-1].dmu.root] = y - (z @ state[weights[-1]] + state[biases[-1]])
            rows = jnp.ones((task.steps, len(advance.get_keywords())))
            state, _ = jax.lax.scan(advance.run.compiled, state, rows)
            return evolve.run.compiled(state, jnp.ones(len(evolve.get_keywords())))[0]

        self._task, self._step, self._state, self._names = task, step, state, (weights, biases)

    def step(self, rows: Any) -> Any:
        y = jax.nn.one_hot(self._task.y[rows], self._task.sizes[-1])
        self._state = self._step(self._state, self._task.x[rows], y)
        return self._state

    def parameters(self) -> Parameters:
        pairs = zip(*self._names, strict=True)
        return [(self._state[w], self._state[b].reshape(-1)) for w, b in pairs]


class Vfe:
    """vfe: the step that `vfe.learn(keep_beliefs=False)` makes."""

    def __init__(self, task: Task, begin: Parameters, **settings: Any) -> None:
        import vfe
        from vfe.conditioning import condition
        from vfe.learning.step import Plan, steps
        from vfe.learning.trainable import joined, split, trainable
        from vfe.networks import Dense, dense, supervised
        from vfe.perception.perceive import Settings

        layers = dense(list(task.sizes), key=jax.random.key(0), activation=jnp.tanh)
        values = [(jnp.asarray(w).T, jnp.asarray(b)) for w, b in begin]
        layers = [
            eqx.tree_at(lambda l: (l.weight, l.bias), layer, value)
            for layer, value in zip(layers, values, strict=True)
        ]
        model = supervised(layers, inputs=task.sizes[0], scale=settings.get("scale"))
        conditioned, _ = condition(model, {"x": np.asarray(task.x), "y": np.asarray(task.y)})
        optimiser = optax.adam(LEARNING_RATE)
        belief = settings.get("belief", vfe.Point)
        gradient = settings.get("gradient", vfe.ExpectationMaximisation())
        most = Settings(settings.get("steps", task.steps), settings.get("rtol", 1e-2), 1e-4, None)
        plan = Plan(
            belief, settings["solver"], most, gradient, None, optimiser, 1, None, len(task.y), False
        )
        learned, fixed = split(model, trainable(model), belief)
        self._state = {"learned": learned, "optimiser": optimiser.init(learned), "store": None}
        zero, off = jnp.asarray(0), jnp.asarray(False)
        self._step = lambda state, rows: steps(
            plan, state, fixed, conditioned, None, rows[None], jax.random.key(0), zero, off
        )
        self._kind = Dense
        self._model = lambda state: joined(state["learned"], fixed, belief)[0]

    def step(self, rows: Any) -> Any:
        self._state, _ = self._step(self._state, rows)
        return eqx.filter(self._state, eqx.is_array)

    def parameters(self) -> Parameters:
        nodes = self._model(self._state).nodes
        names = [*sorted((n for n in nodes if n[0] == "z"), reverse=True), "y"]
        found = [jax.tree.leaves(nodes[n], is_leaf=lambda p: isinstance(p, self._kind)) for n in names]
        layers = [part for parts in found for part in parts if isinstance(part, self._kind)]
        return [(layer.weight.T, layer.bias) for layer in layers]


def libraries() -> dict[str, Callable[[Task, Parameters], Any]]:
    """Every way to learn that can be run here."""
    found: dict[str, Callable[[Task, Parameters], Any]] = {"backpropagation": Backpropagation}
    adapters = {"fabricpc": FabricPC, "ngclearn": NgcLearn, "pcx": Pcx}
    found |= {name: adapter for name, adapter in adapters.items() if importlib.util.find_spec(name)}
    if importlib.util.find_spec("vfe"):
        import vfe

        def way(**settings: Any) -> Callable[[Task, Parameters], Any]:
            return lambda task, begin: Vfe(task, begin, **settings)

        def descent(task: Task, begin: Parameters) -> Vfe:
            solver = vfe.Descent(optax.sgd(task.rate))
            return Vfe(task, begin, solver=solver, scale=1.0, rtol=0.0)

        whole = {"belief": vfe.GaussNewtonLaplace, "gradient": vfe.StochasticTrace(), "scale": 1.0}
        found |= {
            "vfe, the same gradient steps": descent,
            "vfe, Anderson, at most 4 steps": way(solver=vfe.Anderson(), steps=4),
            "vfe, whole F, 1 step, stochastic trace": way(solver=vfe.Anderson(), steps=1, **whole),
        }
    return found
