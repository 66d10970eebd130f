"""Optimizers and learning-rate schedules by name: optax's, with rules by parameter path.

    dict(name="adamw", learning_rate=dict(name="warmup_cosine_decay", init_value=0.0, peak_value=3e-4, ...),
         weight_decay=0.01, weight_decay_mask=("kernel$",), clip=1.0, freeze=("^embed",), lr_rules=(("^head", 0.1),))

A parameter's path is written "down_0/conv/kernel". A rule applies to the paths in which its regular expression is found
(`re.search`; anchor it with ^ and $). A regular expression that is found in no path is an error, because it is a
misspelling more often than not.

The learning rate is a function of the **training step**, not of the number of updates: a critic that is updated five
times a step has the schedule that its config shows.
"""

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from genjax.citation import bibtex
from genjax.config import ConfigError, build, describe
from genjax.families.base import Params
from genjax.registry import register

_REFERENCES = {
    "adam": bibtex("""
        @inproceedings{kingma2015adam,
          title={Adam: A Method for Stochastic Optimization},
          author={Kingma, Diederik P. and Ba, Jimmy},
          booktitle={International Conference on Learning Representations},
          year={2015}
        }"""),
    "adamw": bibtex("""
        @inproceedings{loshchilov2019decoupled,
          title={Decoupled Weight Decay Regularization},
          author={Loshchilov, Ilya and Hutter, Frank},
          booktitle={International Conference on Learning Representations},
          year={2019}
        }"""),
    "adafactor": bibtex("""
        @inproceedings{shazeer2018adafactor,
          title={Adafactor: Adaptive Learning Rates with Sublinear Memory Cost},
          author={Shazeer, Noam and Stern, Mitchell},
          booktitle={International Conference on Machine Learning},
          year={2018}
        }"""),
    "radam": bibtex("""
        @inproceedings{liu2020variance,
          title={On the Variance of the Adaptive Learning Rate and Beyond},
          author={Liu, Liyuan and Jiang, Haoming and He, Pengcheng and Chen, Weizhu and Liu, Xiaodong and Gao, Jianfeng
                  and Han, Jiawei},
          booktitle={International Conference on Learning Representations},
          year={2020}
        }"""),
    "lion": bibtex("""
        @inproceedings{chen2023symbolic,
          title={Symbolic Discovery of Optimization Algorithms},
          author={Chen, Xiangning and Liang, Chen and Huang, Da and Real, Esteban and Wang, Kaiyuan and Liu, Yao
                  and Pham, Hieu and Dong, Xuanyi and Luong, Thang and Hsieh, Cho-Jui and Lu, Yifeng and Le, Quoc V.},
          booktitle={Advances in Neural Information Processing Systems},
          year={2023}
        }"""),
    "muon": bibtex("""
        @misc{jordan2024muon,
          title={Muon: An Optimizer for Hidden Layers in Neural Networks},
          author={Jordan, Keller and Jin, Yuchen and Boza, Vlado and You, Jiacheng and Cesista, Franz and
                  Newhouse, Laker and Bernstein, Jeremy},
          year={2024},
          url={https://kellerjordan.github.io/posts/muon/}
        }"""),
}

Schedule = Callable[[Any], Any]  # step -> learning rate


class Optimizer(NamedTuple):
    """How the weights of one role are updated.

    Attributes:
        init: `init(params) -> opt_state`.
        update: `update(grads, opt_state, params, step) -> (updates, opt_state)`; `step` counts training steps from 0.
        learning_rate: `learning_rate(step)`, before `lr_rules`.
    """

    init: Callable[[Params], Any]
    update: Callable[[Params, Any, Params, Array], tuple[Params, Any]]
    learning_rate: Schedule


def build_optimizer(spec: Mapping[str, Any], params: Params, path: str = "optimizer") -> Optimizer:
    """Builds the optimizer of one role.

    Args:
        spec: `dict(name=..., learning_rate=number or schedule, ...)` with the knobs of optax's function, and
            clip: largest global norm of the gradient of the parameters that are not frozen;
            weight_decay_mask: regular expressions; parameters whose path matches one decay (default: all);
            freeze: regular expressions; parameters whose path matches one stay as they are and have no state;
            lr_rules: pairs (regular expression, factor of the learning rate); the first that matches counts;
            clip_weights: the largest absolute value of a weight: after each update those that are not frozen are
                clipped to it, as those of a critic by Arjovsky et al. 2017, algorithm 1;
            normalize_weights: regular expressions; after each update the weights of each output (the last axis) of a
                parameter whose path matches one are brought to a root mean square of 1, unless they are frozen
                (Karras et al. 2024, eq. 66, for the network "edm2_unet").
        params: the role's tree; shapes are enough.
        path: where in the config the spec stands, for the messages.

    Raises:
        ConfigError: an unknown name or key, a bad value, or a regular expression that matches no parameter.
    """
    make = build("optimizer", spec, path)
    try:
        return make(params=params)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error


def describe_optimizer(spec: Mapping[str, Any], path: str = "optimizer", defaults: bool = True) -> dict[str, Any]:
    """Returns the config of an optimizer with all its defaults, or without any; its schedule's too.

    Raises:
        ConfigError: an unknown name or key.
    """
    told = describe(build("optimizer", spec, path), defaults)
    if not isinstance(told.get("learning_rate"), Mapping):
        return told
    schedule = build("schedule", told["learning_rate"], f"{path}.learning_rate")
    return told | {"learning_rate": describe(schedule, defaults)}


def parameter_paths(params: Params) -> Params:
    """Returns a tree of the same structure whose leaves are the paths, such as "down_0/conv/kernel"."""
    keystr = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
    return jax.tree_util.tree_map_with_path(lambda path, _: keystr(path), params)


def matches(patterns: tuple[str, ...] | str, params: Params, what: str) -> dict[str, bool]:
    """Returns for every path whether one of the regular expressions is found in it.

    Raises:
        ValueError: a pattern is no regular expression, or found in no path; `what` names the option.
    """
    if isinstance(patterns, str):
        raise ValueError(f"{what} = {patterns!r}: must be a list of regular expressions")
    paths = jax.tree.leaves(parameter_paths(params))
    for pattern in patterns:
        try:
            found = any(re.search(pattern, path) for path in paths)
        except re.error as error:
            raise ValueError(f"{what}: {pattern!r} is no regular expression: {error}") from error
        if not found:
            raise ValueError(f"{what}: {pattern!r} matches no parameter; the first are {', '.join(paths[:5])}")
    return {path: any(re.search(pattern, path) for pattern in patterns) for path in paths}


def _optimizer(name: str, factory: Callable[..., optax.GradientTransformation]) -> None:
    """Registers one of optax's optimizers with the options that all of them share."""
    known = inspect.signature(factory).parameters
    mask_key = next((key for key in ("mask", "weight_decay_mask") if key in known), None)

    def make(
        params: Params,
        learning_rate: Any = None,
        clip: float | None = None,
        weight_decay_mask: tuple[str, ...] | None = None,
        freeze: tuple[str, ...] = (),
        lr_rules: tuple[tuple[str, float], ...] = (),
        clip_weights: float | None = None,
        normalize_weights: tuple[str, ...] = (),
        **knobs: Any,
    ) -> Optimizer:
        schedule = _schedule(learning_rate)
        if clip is not None and not clip > 0:
            raise ValueError(f"clip = {clip}: must be positive")
        if clip_weights is not None and not clip_weights > 0:
            raise ValueError(f"clip_weights = {clip_weights}: must be positive")
        if weight_decay_mask is not None:
            if mask_key is None:
                raise ValueError(f"weight_decay_mask: {name} has no decoupled weight decay; adamw has")
            decays = matches(weight_decay_mask, params, "weight_decay_mask")
            # A function, because optax applies it to a tree in which frozen parameters are gone.
            knobs[mask_key] = lambda tree: jax.tree.map(decays.__getitem__, parameter_paths(tree))
        frozen = matches(freeze, params, "freeze")
        normal = matches(normalize_weights, params, "normalize_weights")
        factors = _factors(lr_rules, params)

        def bound(path: str, weights: Array) -> Array:
            if frozen[path]:
                return weights
            if clip_weights is not None:
                weights = jnp.clip(weights, -clip_weights, clip_weights)
            if normal[path]:
                axes = range(weights.ndim - 1)
                weights /= jnp.sqrt(jnp.mean(jnp.square(weights), axis=tuple(axes), keepdims=True))
            return weights

        def transform(rate: Any) -> optax.GradientTransformationExtraArgs:
            steps = [] if clip is None else [optax.clip_by_global_norm(clip)]
            tx = optax.chain(*steps, factory(learning_rate=rate, **knobs))
            if not freeze:
                return optax.with_extra_args_support(tx)
            labels = jax.tree.map(lambda path: "frozen" if frozen[path] else "trained", parameter_paths(params))
            return optax.partition({"trained": tx, "frozen": optax.set_to_zero()}, labels)

        def update(grads: Params, state: Any, params: Params, step: Array) -> tuple[Params, Any]:
            # The transformation is made anew at each trace because its state does not depend on the learning rate.
            updates, state = transform(jnp.float32(schedule(step))).update(grads, state, params)
            if lr_rules:
                updates = jax.tree.map(lambda u, factor: u * factor, updates, factors)
            if clip_weights is not None or normalize_weights:
                move = lambda path, p, u: bound(path, p + u) - p  # noqa: E731
                updates = jax.tree.map(move, parameter_paths(params), params, updates)
            return updates, state

        transform(0.0)  # optax refuses bad knobs here, before anything is compiled
        return Optimizer(lambda params: transform(0.0).init(params), update, schedule)

    own = [p for key, p in inspect.signature(make).parameters.items() if key not in ("params", "knobs")]
    hidden = ("learning_rate", "mask", "weight_decay_mask", "muon_weight_dimension_numbers", "trust_ratio_mask")
    theirs = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for key, p in known.items() if key not in hidden]
    make.__signature__ = inspect.Signature([p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + theirs)  # type: ignore[attr-defined]
    make.__doc__ = inspect.getdoc(factory)
    register("optimizer", name, reference=_REFERENCES.get(name))(make)


def _schedule(learning_rate: Any) -> Schedule:
    if hasattr(learning_rate, "items"):
        return build("schedule", learning_rate, "learning_rate")()
    if isinstance(learning_rate, bool) or not isinstance(learning_rate, int | float) or learning_rate < 0:
        raise ValueError(f"learning_rate = {learning_rate!r}: must be a number of at least 0 or a schedule")
    return optax.constant_schedule(float(learning_rate))


def _factors(rules: tuple[tuple[str, float], ...], params: Params) -> Params:
    for rule in rules:
        if not (isinstance(rule, tuple) and len(rule) == 2 and isinstance(rule[1], int | float)):
            raise ValueError(f"lr_rules: {rule!r} must be a pair of a regular expression and a number")
    matches(tuple(pattern for pattern, _ in rules), params, "lr_rules")
    first = lambda path: next((factor for pattern, factor in rules if re.search(pattern, path)), 1.0)  # noqa: E731
    return jax.tree.map(first, parameter_paths(params))


for _name in (
    "adabelief adadelta adafactor adagrad adam adamax adamaxw adamw adan amsgrad lamb lars lion nadam nadamw novograd "
    "radam rmsprop sgd yogi"
).split():
    _optimizer(_name, getattr(optax, _name))
_optimizer("muon", optax.contrib.muon)


def warmup_linear_decay(
    init_value: float, peak_value: float, warmup_steps: int, decay_steps: int, end_value: float = 0.0
) -> Schedule:
    """Linear warmup followed by linear decay; `decay_steps` counts from 0, the warmup included, as in optax."""
    if not 0 <= warmup_steps < decay_steps:
        raise ValueError(f"warmup_steps = {warmup_steps}, decay_steps = {decay_steps}: must be 0 <= warmup < decay")
    rise = optax.linear_schedule(init_value, peak_value, warmup_steps)
    fall = optax.linear_schedule(peak_value, end_value, decay_steps - warmup_steps)
    return optax.join_schedules([rise, fall], [warmup_steps])


def inverse_sqrt(peak_value: float, reference_steps: int, warmup_steps: int = 0) -> Schedule:
    """A constant rate that falls as 1 / sqrt(step) from a step on (Karras et al. 2024, eq. 67), after a linear warmup.

    Args:
        peak_value: the rate until then.
        reference_steps: the step from which it falls, t_ref.
        warmup_steps: steps over which it rises from 0; it falls no later for them.

    Returns:
        The schedule.
    """
    if not 0 < reference_steps or not 0 <= warmup_steps:
        raise ValueError(
            f"reference_steps = {reference_steps}, warmup_steps = {warmup_steps}: must be positive and at least 0"
        )

    def schedule(step: Any) -> Any:
        rise = jnp.minimum(step / warmup_steps, 1.0) if warmup_steps else 1.0
        return peak_value * rise / jnp.sqrt(jnp.maximum(step / reference_steps, 1.0))

    return schedule


def linear_restarts(init_value: float, period: int, end_value: float = 0.0) -> Schedule:
    """A linear fall that begins anew every `period` steps, as in each round of Salimans & Ho 2022.

    Args:
        init_value: the rate at the first step of a period.
        period: steps.
        end_value: the rate that the fall aims at; the last step of a period is one step short of it.

    Returns:
        The schedule.
    """
    if period < 1:
        raise ValueError(f"period = {period}: must be at least 1")

    def schedule(step: Any) -> Any:
        return init_value + (end_value - init_value) * (step % period) / period

    return schedule


for _name, _function in {
    "constant": optax.constant_schedule,
    "linear": optax.linear_schedule,
    "linear_restarts": linear_restarts,
    "polynomial": optax.polynomial_schedule,
    "exponential_decay": optax.exponential_decay,
    "cosine_decay": optax.cosine_decay_schedule,
    "inverse_sqrt": inverse_sqrt,
    "linear_onecycle": optax.linear_onecycle_schedule,
    "cosine_onecycle": optax.cosine_onecycle_schedule,
    "warmup_constant": optax.warmup_constant_schedule,
    "warmup_linear_decay": warmup_linear_decay,
    "warmup_cosine_decay": optax.warmup_cosine_decay_schedule,
    "warmup_exponential_decay": optax.warmup_exponential_decay_schedule,
}.items():
    register("schedule", _name)(_function)
