"""Running a torch.export program without torch.export: its graph is data, and this file does what the graph says.

`torch.export.load` unpickles constants and example inputs, evaluates text of the file as Python (shapes, through sympy) and
compiles Python that it writes out of the file's names. None of that is needed to run a graph: its nodes name operators of
ATen and their arguments in JSON, and its weights are bytes. Only operators that compute are run.
"""

import json
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taggant_lightning.access.files.archive import Archive
from taggant_lightning.access.files.inputs import InputShape
from taggant_lightning.access.files.operators import in_training, is_allowed, not_allowed
from taggant_lightning.access.files.program_weights import DTYPES, read_tensors
from taggant_lightning.access.files.training import check_program_node
from taggant_lightning.errors import TaggantError

MODEL = re.compile(r"models/([\w-]+)\.json")
OLD_MODEL = "serialized_exported_program.json"  # before torch 2.8
LISTS = {"as_tensors", "as_optional_tensors", "as_sym_ints", "as_sym_bools", "as_sym_floats"}
PLAIN = {"as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_string", "as_strings", "as_int_lists"}
FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format}
# Arithmetic of shapes. No power: a file could ask for a number without end.
NUMBERS: dict[str, Callable[..., Any]] = {
    **{f"{module}.{f.__name__}": f for module in ("_operator", "operator") for f in (
        operator.add, operator.sub, operator.mul, operator.floordiv, operator.truediv, operator.mod, operator.neg,
        operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge, operator.and_, operator.or_,
    )},
    "math.ceil": math.ceil, "math.floor": math.floor, "math.trunc": math.trunc,
    "torch.sym_int": int, "torch.sym_float": float, "torch.sym_max": max, "torch.sym_min": min, "torch.sym_not": operator.not_,
    "torch.sym_sum": lambda *terms: sum(terms[0] if len(terms) == 1 and isinstance(terms[0], list) else terms),
}  # fmt: skip
GRAD_MODE = "torch.ops.higher_order.wrap_with_set_grad_enabled"  # what a torch.no_grad() within the model becomes
# Checks that the exporter adds; without them a wrong shape still fails in the operator that meets it.
CHECKS = {"sym_constrain_range", "sym_constrain_range_for_size", "_assert_scalar", "_assert_tensor_metadata", "_assert_async"}
ATEN = "torch.ops.aten."
# They read running statistics without looking at their number, which is looked at here (`_check_statistics`).
BATCH_NORM = {"native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"}
# Text that an operator may be given. from_file and save, which touch files, take a `filename`.
TEXTS = {"approximate", "equation", "indexing", "mode", "norm", "ord", "padding", "reduce", "rounding_mode"}
FOREIGN = ("Storage", "Stream", "Generator", "ScriptObject", "__torch__")


class Program:
    """The graph of a .pt2 file, checked and ready to run on the CPU.

    Args:
        archive: The file.

    Attributes:
        shape: What it takes.

    Raises:
        TaggantError: If it is damaged, takes other than one float image tensor, or needs anything but ATen's operators.
    """

    def __init__(self, archive: Archive) -> None:
        self._what = archive.what
        names = [name for name in archive.names if MODEL.fullmatch(name) or name == OLD_MODEL]
        if len(names) != 1:
            raise TaggantError(f"{self._what} holds {len(names)} exported programs; write one with torch.export.save")
        match = MODEL.fullmatch(names[0])
        tensors = read_tensors(archive, match[1] if match else None)
        try:
            module = json.loads(archive.read(names[0]))["graph_module"]
            self._graph = module["graph"]
            self._operators: dict[str, Callable[..., Any] | None] = {}
            self._check(self._graph)
            outputs = module["signature"]["output_specs"]
            mutated = [value for kind, value in map(_only, outputs) if kind == "buffer_mutation"]
            if mutated:
                raise in_training(self._what, f"it changes its own {mutated[0]['buffer_name']!s:.60} while it answers")
            self._own = [place for place, spec in enumerate(outputs) if _only(spec)[0] in ("user_output", "loss_output")]
            self._bind_inputs(module["signature"]["input_specs"], tensors)
        except TaggantError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise TaggantError(f"{self._what} is damaged ({type(error).__name__}: {error}); export the model again") from None

    def _check(self, graph: dict[str, Any]) -> None:
        """Find every operator of a graph and of the graphs within it, before anything runs."""
        for node in graph["nodes"]:
            target = str(node["target"])
            if target == GRAD_MODE:
                self._check(_only(node["inputs"][1]["arg"])[1]["graph"])
                continue
            if target.startswith(ATEN):
                name = target.removeprefix(ATEN).partition(".")[0]
                check_program_node(self._what, name, [(a["name"], a["arg"]) for a in node["inputs"]])
            if target not in self._operators:
                self._operators[target] = self._operator(target)

    def _operator(self, target: str) -> Callable[..., Any] | None:
        if target in NUMBERS:
            return NUMBERS[target]
        refusal = not_allowed(self._what, f"{target!r:.80}")
        match = re.fullmatch(r"torch\.ops\.aten\.([a-zA-Z_]\w*)\.([a-zA-Z]\w*)", target)
        if match is None:
            raise refusal
        name, overload = match.groups()
        if name in CHECKS:
            return None
        if not is_allowed(name) and name not in BATCH_NORM:
            raise refusal
        packet = getattr(torch.ops.aten, name, None)
        found = getattr(packet, overload, None) if isinstance(packet, torch._ops.OpOverloadPacket) else None
        if not isinstance(found, torch._ops.OpOverload):
            raise TaggantError(
                f"{self._what} needs {target!r:.80}, which torch {torch.__version__} does not have; export it again"
            )
        for argument in found._schema.arguments:
            kind = str(argument.type)
            if ("str" in kind and argument.name not in TEXTS) or any(word in kind for word in FOREIGN):
                raise refusal
        return found

    def _bind_inputs(self, specs: list[dict[str, Any]], tensors: Mapping[str, Tensor]) -> None:
        """Give the graph's inputs their weights, and find the one that is the images."""
        self._values: dict[str, Any] = {}
        users = []
        fields = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}
        for spec, graph_input in zip(specs, self._graph["inputs"], strict=True):
            kind, value = _only(spec)
            if kind in fields:
                self._values[_only(graph_input)[1]["name"]] = tensors[value[fields[kind]]]
            elif kind == "user_input" and _only(value["arg"])[0] == "as_tensor":
                users.append(_only(value["arg"])[1]["name"])
            elif kind not in ("user_input", "constant_input"):  # the others are None or a plain value, folded into the graph
                raise TaggantError(f"{self._what} takes a {kind.replace('_', ' ')}; export a model of tensors only, or ONNX")
        if len(users) != 1:
            raise TaggantError(f"{self._what} takes {len(users)} tensors; export a model that takes images and nothing else")
        meta = self._graph["tensor_values"][users[0]]
        sizes = [value if kind == "as_int" else None for kind, value in map(_only, meta["sizes"])]
        dtype = DTYPES[meta["dtype"]]
        if len(sizes) != 4:
            raise TaggantError(f"{self._what} takes an input of rank {len(sizes)}; export a model that takes (N, C, H, W)")
        if not dtype.is_floating_point:
            raise TaggantError(f"{self._what} takes {dtype} images; export a model that takes float images in [0, 1]")
        self._input, self._dtype, self.shape = users[0], dtype, InputShape(*sizes)

    def __call__(self, images: NDArray[np.float32]) -> list[Any]:
        """Run the graph.

        Args:
            images: (n, C, H, W) float32.

        Returns:
            The outputs that the model's own forward returns.

        Raises:
            TaggantError: If the graph is damaged.
            RuntimeError: If an operator fails, as on a shape that the graph is not for.
        """
        with torch.no_grad():
            values = {**self._values, self._input: torch.from_numpy(images).to(self._dtype)}
            try:
                outputs = self._run(self._graph, values)
                return [outputs[place] for place in self._own]
            except (KeyError, AttributeError, TypeError) as error:  # of the graph; operators raise RuntimeError or IndexError
                sentence = f"{self._what} is damaged ({type(error).__name__}: {error!s:.200}); export the model again"
                raise TaggantError(" ".join(sentence.split())) from None

    def _run(self, graph: dict[str, Any], values: dict[str, Any]) -> list[Any]:
        nodes = graph["nodes"]
        last = {name: place for place, node in enumerate(nodes) for name in _names(node["inputs"])}
        kept = set(_names(graph["outputs"]))
        for place, node in enumerate(nodes):
            arguments = [(a["name"], a["arg"]) for a in node["inputs"]]
            if node["target"] == GRAD_MODE:
                inner = _only(arguments[1][1])[1]["graph"]
                given = [_resolve(a, values) for _, a in arguments[2:]]
                names = [_name(_only(a)[1]) for a in inner["inputs"]]
                _bind(node["outputs"], self._run(inner, dict(zip(names, given, strict=True))), values)
            elif (function := self._operators[node["target"]]) is not None:
                _bind(node["outputs"], _call(function, [(n, _resolve(a, values)) for n, a in arguments]), values)
            for name in _names(node["inputs"]):  # what no later node reads makes room
                if last[name] == place and name not in kept:
                    values.pop(name, None)
        return [_resolve(output, values) for output in graph["outputs"]]


def _call(function: Callable[..., Any], arguments: list[tuple[str, Any]]) -> Any:
    """Call an operator with the arguments that the file names; it leaves out those that keep their default."""
    if not isinstance(function, torch._ops.OpOverload):
        return function(*(value for _, value in arguments))
    given, positional = dict(arguments), []
    if function._schema.name.removeprefix("aten::") in BATCH_NORM:
        _check_statistics(given)
    for argument in function._schema.arguments:
        if argument.kwarg_only or argument.name not in given:
            break
        positional.append(given.pop(argument.name))
    return function(*positional, **given)


def _check_statistics(given: dict[str, Any]) -> None:
    """Refuse weights and running statistics of another number than there are channels."""
    wrong = [
        name
        for name, value in given.items()
        if name != "input" and isinstance(value, Tensor) and value.shape != given["input"].shape[1:2]
    ]
    if wrong:
        raise TypeError(f"batch norm of {given['input'].shape[1]} channels has {wrong[0]} of another length")


def _bind(outputs: list[dict[str, Any]], result: Any, values: dict[str, Any]) -> None:
    """Give a node's results their names."""
    if len(outputs) == 1 and _only(outputs[0])[0] in LISTS:
        results = [result]
    else:
        results = list(result) if isinstance(result, list | tuple) else [result]
    for output, value in zip(outputs, results, strict=False):
        kind, target = _only(output)
        if kind in LISTS:
            for inner, item in zip(target, value, strict=True):
                values[_name(inner)] = item
        elif kind != "as_none":
            values[_name(target)] = value


def _resolve(argument: dict[str, Any], values: Mapping[str, Any]) -> Any:
    """Return what an argument stands for."""
    kind, value = _only(argument)
    if kind in ("as_none", "as_layout"):  # all tensors here are strided, the default
        return None
    if kind in PLAIN:
        return _floats(value) if kind in ("as_float", "as_floats") else value
    if kind == "as_tensor":
        return values[value["name"]]
    if kind in ("as_sym_int", "as_sym_bool", "as_sym_float"):
        inner, content = _only(value)
        return values[content] if inner == "as_name" else content
    if kind == "as_optional_tensor":
        return _resolve(value, values)
    if kind == "as_tensors":
        return [values[item["name"]] for item in value]
    if kind == "as_optional_tensors":
        return [_resolve(item, values) for item in value]
    if kind in LISTS:
        return [_resolve({kind.removesuffix("s"): item}, values) for item in value]
    if kind == "as_scalar_type":
        return DTYPES[value]
    if kind == "as_memory_format":
        return FORMATS[value]
    if kind == "as_device":
        return torch.device("cpu")
    raise TypeError(f"an argument is {kind}")


def _only(union: dict[str, Any]) -> tuple[str, Any]:
    """Return the one field of a union that is set."""
    ((kind, value),) = ((k, v) for k, v in union.items() if v is not None)
    return kind, value


def _name(value: dict[str, Any]) -> str:
    """Return the name of a tensor or a number among a node's outputs."""
    found = value.get("name", value.get("as_name"))
    return str(_only(value)[1]["name"] if found is None else found)


def _names(value: Any) -> list[str]:
    """Return the names that arguments read, graphs within them included; a name too many only keeps a tensor longer."""
    if isinstance(value, dict):
        own = [str(value[key]) for key in ("name", "as_name") if isinstance(value.get(key), str) and "arg" not in value]
        return own + [name for inner in value.values() for name in _names(inner)]
    return [name for inner in value for name in _names(inner)] if isinstance(value, list) else []


def _floats(value: Any) -> Any:
    """Return numbers; infinities and NaN are text in JSON."""
    return [float(item) for item in value] if isinstance(value, list) else float(value)
