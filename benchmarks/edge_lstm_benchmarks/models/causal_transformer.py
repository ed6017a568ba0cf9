"""A small causal Transformer in PyTorch, for training; NumPy runs it in ``sequence_cells.py``."""

from functools import cache

import torch
from torch import nn

from edge_lstm_benchmarks.sequence_cells import BLOCKS, HEADS, WIDTH, position_code


class Block(nn.Module):
    """Attention to this step and all before it, then two layers with a ReLU; each with a bypass."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.before = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.between = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, size)
        self.down = nn.Linear(size, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``[batch, time, WIDTH]``."""
        batch, time, _ = x.shape
        heads = self.qkv(self.before(x)).view(batch, time, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        query, key, value = heads
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, time, WIDTH))
        y: torch.Tensor = x + self.down(torch.relu(self.up(self.between(x))))
        return y


class CausalTransformer(nn.Module):
    """Blocks over steps with sines for positions; gives the outputs behind the last step."""

    def __init__(self, inputs: int, size: int, outputs: int) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, WIDTH)
        self.blocks = nn.ModuleList(Block(size) for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(WIDTH)
        self.fc = nn.Linear(WIDTH, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``[batch, outputs]`` for ``[batch, time, inputs]``."""
        y = self.enter(x) + _position_codes(x.shape[1])
        for block in self.blocks:
            y = block(y)
        result: torch.Tensor = self.fc(self.norm(y[:, -1]))
        return result


@cache
def _position_codes(steps: int) -> torch.Tensor:
    """Return the codes of the first steps, ``[steps, WIDTH]``."""
    return torch.stack([torch.from_numpy(position_code(step)) for step in range(steps)])
