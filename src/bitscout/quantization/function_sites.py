# SPDX-License-Identifier: Apache-2.0
"""Modules in the place of functions that a network calls in its own code.

A network that writes ``a + b`` stays as it is: while it runs, a mode watches the functions it
calls, and sends those at known places to modules that hang below the network's root. The modules
are ordinary children: they are saved, moved and copied with the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bitscout.quantization.places import Place, Tally, kind_of

__all__ = ["FunctionSites"]

_NAME = "function_sites"


class FunctionSites(nn.Module):
    """Modules by the place of the function that each replaces.

    Attributes:
        path: Name among the root's children.
        writes_through: Whether an addition in place also changes the tensor it is given, which
            costs two copies. Only needed where the network reads that tensor by another name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.path = _NAME
        self.writes_through = False
        self._keys: dict[Place, str] = {}
        self._tally = Tally()
        self._mode: _Redirect | None = None

    @classmethod
    def installed(cls, root: nn.Module, hosts: Mapping[str, nn.Module]) -> FunctionSites:
        """Return new sites that hang below `root`.

        Args:
            root: The network; gets a child and hooks.
            hosts: By path, all modules below it that call functions.
        """
        sites = cls()
        while hasattr(root, sites.path):
            sites.path += "_"
        for path, host in {"": root, **hosts}.items():
            host.register_forward_pre_hook(partial(_enter, sites, path))
            host.register_forward_hook(partial(_leave, sites), always_call=True)
        root.add_module(sites.path, sites)
        return sites

    def put(self, place: Place, name: str, module: nn.Module) -> str:
        """Let `module` replace the function called at `place`.

        Args:
            place: The place.
            name: What to call it; gets a number where that is taken.
            module: Takes the tensors that the function takes, without its weights.

        Returns:
            The name it got.
        """
        free, count = name, 1
        while hasattr(self, _key(free)):
            count += 1
            free = f"{name}_{count}"
        self._keys[place] = _key(free)
        self.add_module(_key(free), module)
        return free

    def path_of(self, name: str) -> str:
        """Return the path below the root of the module that was put here as `name`."""
        return f"{self.path}.{_key(name)}"

    def at(self, place: Place) -> nn.Module | None:
        """Return the module for the function called at `place`."""
        key = self._keys.get(place)
        return None if key is None else self._modules[key]

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`: a `torch.nn.Sequential` at the root runs all of its children."""
        return x


class _Redirect(TorchFunctionMode):
    """Sends functions at known places to modules."""

    def __init__(self, sites: FunctionSites) -> None:
        super().__init__()
        self._sites = sites

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401  # torch's own signature
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        kind = kind_of(func, args, kwargs)
        if kind is None:
            return func(*args, **kwargs)
        module = self._sites.at(self._sites._tally.place(kind))
        if module is None:
            return func(*args, **kwargs)
        x = args[0] if args else kwargs["input"]
        if kind == "add":
            return self._add(module, func, x, args[1] if len(args) > 1 else kwargs["other"])
        result = module(x)
        return _without_averaged(result, args, kwargs) if kind == "mean" else result

    def _add(self, module: nn.Module, func: Callable[..., Any], a: Tensor, b: Tensor) -> Tensor:
        is_in_place = func.__name__ in ("add_", "__iadd__")
        if not (is_in_place and self._sites.writes_through):
            result: Tensor = module(a, b)
            return result
        return a.copy_(module(a.clone(), b))


def _without_averaged(y: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """Drop the dimensions of ``(n, C, 1, 1)`` that a mean with these arguments drops.

    Of ``x.mean(3).mean(2)`` the first averages over both and drops one; the second then averages
    over a single pixel.
    """
    if kwargs.get("keepdim", args[2] if len(args) > 2 else False):
        return y
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    return y.flatten(1 if isinstance(dim, list | tuple) and len(dim) == 2 else 2)


def _enter(sites: FunctionSites, path: str, _host: nn.Module, _args: object) -> None:
    # Not always the root: gradient checkpointing runs parts of a network on their own.
    if not sites._tally.depth:
        sites._mode = _Redirect(sites)
        sites._mode.__enter__()  # type: ignore[no-untyped-call]
    sites._tally.enter(path)


def _leave(sites: FunctionSites, _host: nn.Module, _args: object, _result: object) -> None:
    sites._tally.leave()
    if sites._mode is not None and not sites._tally.depth:
        sites._mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        sites._mode = None


def _key(name: str) -> str:
    """Return `name` as the key of a child, which no dot may be in."""
    return name.replace(".", "_")
