"""torch's optimiser with a rate for each depth and a schedule that is a function of the step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fishfeat.finetuning.recipes import Recipe


class Optimiser:
    """An optimiser, its schedule, and its state by the names of the parameters.

    Parameters
    ----------
    optimiser
        torch's; each of its groups has a `base_rate`.
    names
        Parameter -> its name.
    recipe, n_steps
        Shape and length of the schedule.
    """

    def __init__(
        self,
        optimiser: torch.optim.Optimizer,
        parameters: Mapping[str, nn.Parameter],
        recipe: Recipe,
        n_steps: int,
    ) -> None:
        self._optimiser = optimiser
        self._parameters = dict(parameters)
        self._recipe = recipe
        self._n_steps = n_steps
        self.rate = 0.0

    def set_rate(self, step: int) -> None:
        """Set the rates of a step, from 0."""
        factor = schedule_rate(step, self._n_steps, self._recipe)
        self.rate = factor * self._recipe.lr
        for group in self._optimiser.param_groups:
            group["lr"] = factor * group["base_rate"]

    def clear(self) -> None:
        """Forget the gradients of the last step."""
        self._optimiser.zero_grad(set_to_none=True)

    def has_finite_gradients(self) -> bool:
        """Whether every gradient is a finite number; limits their norm as the recipe says."""
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if not bool(torch.isfinite(norm)):
            return False
        if self._recipe.clip_grad:
            values = list(self._parameters.values())
            torch.nn.utils.clip_grads_with_norm_(values, self._recipe.clip_grad, norm)
        return True

    def step(self) -> None:
        """Make the step."""
        self._optimiser.step()

    def list_tensors(self) -> dict[str, Tensor]:
        """The state, 'optimiser/<entry>/<parameter>' -> tensor."""
        tensors = {}
        for name, parameter in self._parameters.items():
            for entry, value in self._optimiser.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"optimiser/{entry}/{name}"] = value
        return tensors

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue with the state that `list_tensors` gave."""
        for key, tensor in tensors.items():
            kind, _, rest = key.partition("/")
            entry, _, name = rest.partition("/")
            if kind == "optimiser" and name in self._parameters:
                parameter = self._parameters[name]
                # torch's fused step takes for granted that the state lies in memory as its
                # parameter does, and a file has lost that.
                state = torch.empty_like(parameter) if tensor.ndim else torch.empty_like(tensor)
                self._optimiser.state[parameter][entry] = state.detach().copy_(tensor)


def make_optimiser(
    parameters: Mapping[str, nn.Parameter],
    depths: Mapping[str, int],
    recipe: Recipe,
    n_steps: int,
) -> Optimiser:
    """Make the optimiser of a recipe.

    Parameters
    ----------
    parameters
        Those that learn, by name.
    depths
        Name of a parameter -> number of blocks behind its own. Names that are missing are of the
        head.
    recipe
        Optimiser, rates, weight decay and schedule.
    n_steps
        Number of steps.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in parameters.items():
        rate = recipe.head_lr
        if name in depths:
            rate = recipe.lr * recipe.layer_decay ** depths[name]
        decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
        group = groups.setdefault((rate, decay), {"params": [], "base_rate": rate})
        group["params"].append(parameter)
        group["weight_decay"] = decay
    optimiser: torch.optim.Optimizer
    values = list(groups.values())
    if recipe.optimizer == "sgd":
        optimiser = torch.optim.SGD(values, lr=recipe.lr, momentum=0.9)
    elif recipe.optimizer == "rmsprop":
        optimiser = torch.optim.RMSprop(values, lr=recipe.lr, alpha=0.9, eps=1e-7)
    elif recipe.optimizer == "adam":
        optimiser = torch.optim.Adam(values, lr=recipe.lr, fused=True)
    else:
        optimiser = torch.optim.AdamW(values, lr=recipe.lr, fused=True)
    return Optimiser(optimiser, parameters, recipe, n_steps)


def schedule_rate(step: int, n_steps: int, recipe: Recipe) -> float:
    """Factor on the largest rate at a step: it grows linearly, then falls as half a cosine."""
    n_warmup = round(recipe.warmup * n_steps)
    if step < n_warmup:
        return (step + 1) / n_warmup
    if recipe.schedule == "constant":
        return 1.0
    share = (step - n_warmup) / max(1, n_steps - n_warmup)
    return 0.5 * (1 + math.cos(math.pi * share))
