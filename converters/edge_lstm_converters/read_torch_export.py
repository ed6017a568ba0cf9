"""Exported PyTorch programs to ModelSpec: .pt2 files without PyTorch, nn.Modules with it."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

from edge_lstm.errors import MissingTool, UnsupportedModel
from edge_lstm.spec import ModelSpec, identifier
from edge_lstm_converters.pt2_file import read_pt2
from edge_lstm_converters.torch_graph import graph_to_spec


def read_exported(path: Path, name: str | None = None) -> ModelSpec:
    """Read a file of ``torch.export.save``, without PyTorch.

    Raises:
        UnreadableModel: the file is damaged.
        UnsupportedModel: the program computes what has no counterpart here.
    """
    return graph_to_spec(read_pt2(path), str(path), name or identifier(path.stem))


def read_module(
    module: Any, example_input: Any, name: str = "model", *, check: bool = True
) -> ModelSpec:
    """Read a ``torch.nn.Module``: export it, and read what torch.export saves.

    Args:
        module: the model; put into eval mode while it is exported.
        example_input: a tensor, or a tuple of all positional arguments.
        name: of the model.
        check: run it beside what was read.

    Raises:
        UnsupportedModel: torch.export cannot trace it, or it computes what has no counterpart here.
        MismatchError: what was read computes something else.
        MissingTool: PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingTool(
            "PyTorch is not installed, and reading an nn.Module needs it: pip install torch"
        ) from error
    where = type(module).__name__
    arguments = example_input if isinstance(example_input, tuple) else (example_input,)
    was_training = module.training
    module.eval()
    try:
        # It warns of weights that nn.LSTM keeps in a list, which does no harm here.
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(module, arguments)
            file = io.BytesIO()
            torch.export.save(program, file)
    # torch.export raises whatever the module's own code, or its tracing of it, raises.
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UnsupportedModel(f"{where}: torch.export cannot trace it: {reason}") from error
    finally:
        module.train(was_training)
    spec = graph_to_spec(read_pt2(Path(where), file.getvalue()), where, name)
    if check:
        from edge_lstm_converters.check_torch import check_module

        module.eval()
        try:
            check_module(module, arguments, program, spec)
        finally:
            module.train(was_training)
    return spec
