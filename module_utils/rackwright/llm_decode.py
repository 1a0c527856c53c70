# SPDX-License-Identifier: Apache-2.0
"""Prompts and decode steps of a model over a static cache. Runs only inside a child process; torch is handed in.

Everything a step touches is allocated before the first one, and where each sequence stands is a tensor on the device:
no step waits for the host, changes a shape or allocates. So a step can be captured once as a CUDA graph and replayed.
Where capturing fails, the same step runs eagerly and ``graphs_missing`` says why.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .benchmark_errors import is_out_of_memory
from .llm_model import causal, has_gqa
from .llm_workloads import Workload, bucket_of, buckets

#: Tokens of prompts computed in one forward: enough for full matrix units, small beside a cache.
PREFILL_TOKENS = 4096
#: Steps run before a capture, on the stream it is captured from: libraries allocate and choose kernels then.
WARMUP_STEPS = 3


@dataclass(frozen=True)
class Kernel:
    """One way to compute attention over the cache: the function, and a context to call it in."""

    name: str
    attend: Callable[..., Any]
    context: Callable[[], Any] = contextlib.nullcontext


def kernels(torch: Any, on_gpu: bool) -> list[Kernel]:
    """Return the ways this torch offers; which of them run, and fast, only trying shows.

    ``flash`` is not among them: it takes no mask, and without one a step would have to attend to exactly its tokens.
    ``matmul`` is torch's ``math`` backend without its copies of the cache in wider types.
    """
    found = [Kernel("matmul", lambda q, k, v, bias: _matmul(torch, q, k, v, bias))]
    folded = _folded(torch)
    attention = getattr(torch.nn, "attention", None)
    if not on_gpu or attention is None or not hasattr(attention, "sdpa_kernel"):
        return [Kernel("sdpa", folded), *found]
    for name, member in (("cudnn", "CUDNN_ATTENTION"), ("efficient", "EFFICIENT_ATTENTION")):
        backend = getattr(attention.SDPBackend, member, None)
        if backend is not None:
            found.append(Kernel(f"sdpa:{name}", folded, functools.partial(attention.sdpa_kernel, backend)))
    return found


def _folded(torch: Any) -> Callable[..., Any]:
    """One query per sequence: the heads that share keys are that many queries of one head, so nothing is expanded."""
    sdpa = torch.nn.functional.scaled_dot_product_attention

    def attend(q: Any, k: Any, v: Any, bias: Any) -> Any:
        batch, heads, _, width = q.shape
        return sdpa(_fold(q, k), k, v, attn_mask=bias).reshape(batch, heads, 1, width)

    return attend


def _matmul(torch: Any, q: Any, k: Any, v: Any, bias: Any) -> Any:
    """Scores, softmax in float32, weighted values: three plain kernels that read the cache once each."""
    scores = _fold(q, k) @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5) + bias
    weights = torch.softmax(scores, -1, dtype=torch.float32).to(v.dtype)
    return (weights @ v).reshape(q.shape)


def _fold(q: Any, k: Any) -> Any:
    batch, heads, _, width = q.shape
    return q.reshape(batch, k.shape[1], heads // k.shape[1], width)


#: One stream per torch and device, for every decoder: libraries keep a workspace per stream, up to 32 MiB, for ever.
_SIDE_STREAMS: dict[tuple[int, str], tuple[Any, Any]] = {}


def side_stream(torch: Any, device: str) -> Any:
    """Return the stream on which steps are warmed up and captured."""
    key = (id(torch), device)
    if key not in _SIDE_STREAMS:
        _SIDE_STREAMS[key] = (torch, torch.cuda.Stream())  # torch is held, so that no other object gets its id
    return _SIDE_STREAMS[key][1]


class Decoder:
    """A batch of sequences: their cache [layers, batch, kv_heads, slot, head_dim], newest token and position."""

    def __init__(self, torch: Any, model: Any, workload: Workload, batch: int, device: str, dtype: Any) -> None:
        shape = workload.shape
        self.torch, self.model, self.workload, self.batch, self.device = torch, model, workload, batch, device
        sizes = (shape.layers, batch, shape.kv_heads, workload.slot, shape.head_dim)
        self.keys = torch.zeros(sizes, device=device, dtype=dtype)
        self.values = torch.zeros(sizes, device=device, dtype=dtype)
        self.tokens = torch.zeros(batch, device=device, dtype=torch.int64)
        self.position = torch.zeros(batch, device=device, dtype=torch.int64)
        self._rows = torch.arange(batch, device=device)
        self._columns = torch.arange(workload.slot, device=device)
        self._hidden = torch.full((), float("-inf"), device=device, dtype=dtype)
        self._seen = torch.zeros((), device=device, dtype=dtype)
        self._prompt_attend = _written(causal(torch, has_gqa(torch)))
        self.widths = buckets(workload)
        self.kernel = kernels(torch, on_gpu=device != "cpu")[0]
        #: Prompts computed in one forward.
        self.group = max(1, PREFILL_TOKENS // workload.prompt)
        self._graphs: dict[int, Any] = {}
        self._pool: Any = None
        self._never = None if device != "cpu" else "the device is a CPU"
        self.graphs_missing: str | None = self._never

    @property
    def graphs(self) -> bool:
        """Whether every step that was prepared is a graph."""
        return self.graphs_missing is None and bool(self._graphs)

    def use(self, kernel: Kernel) -> None:
        """Decode with another way of attention; graphs of the last one go, and so does why it may have had none."""
        self.kernel = kernel
        self.graphs_missing = self._never
        self._graphs.clear()
        self._pool = None

    def prefill(self, prompts: Any, row: int = 0) -> Any:
        """Compute prompts [N, T] into the slots from ``row`` on; returns the logits [N, vocab] of their last tokens.

        The first token of each answer is chosen, and the sequences stand at T.
        """
        number, length = prompts.shape
        states = [
            (self.keys[layer, row : row + number], self.values[layer, row : row + number])
            for layer in range(self.workload.shape.layers)
        ]
        with self.torch.no_grad():
            cos, sin = self.model.cos[:length], self.model.sin[:length]
            hidden = self.model.hidden(prompts, cos, sin, self._prompt_attend, states)
            logits = self.model.head(hidden[:, -1])
            self.tokens[row : row + number].copy_(logits.argmax(-1))
            self.position[row : row + number].fill_(length)
        return logits

    def fill(self, prompts: Any) -> None:
        """Compute one prompt per slot, in groups that keep the matrix units busy."""
        for row in range(0, self.batch, self.group):
            self.prefill(prompts[row : row + self.group], row)

    def repeat(self, rows: int) -> None:
        """Fill the other slots with copies of the first ``rows``, which saves computing thousands of prompts."""
        for row in range(rows, self.batch, rows):
            end = min(row + rows, self.batch)
            for held in (self.keys, self.values):
                held[:, row:end].copy_(held[:, : end - row])
            for held in (self.tokens, self.position):
                held[row:end].copy_(held[: end - row])

    def start(self, length: int) -> None:
        """Put every sequence at ``length`` tokens of its slot; what the cache holds stays."""
        self.position.fill_(length)

    def step(self, width: int) -> Any:
        """Decode one token of every sequence eagerly, attending to the first ``width`` places; returns the logits."""
        with self.torch.no_grad(), self.kernel.context():
            places = self.position
            bias = self._bias(width)
            attend = self.kernel.attend
            states = [
                (self.keys[layer], self.values[layer], self._rows, places, bias)
                for layer in range(self.workload.shape.layers)
            ]
            cos, sin = self.model.cos[places][:, None, None], self.model.sin[places][:, None, None]
            hidden = self.model.hidden(self.tokens[:, None], cos, sin, _cached(attend), states)
            logits = self.model.head(hidden[:, 0])
            self.tokens.copy_(logits.argmax(-1))
            self.position.add_(1)
        return logits

    def _bias(self, width: int) -> Any:
        """Return what is added to the scores [B, 1, 1, width]: nothing at places that are in use, else -inf."""
        visible = self._columns[:width] <= self.position[:, None]
        return self.torch.where(visible, self._seen, self._hidden)[:, None, None, :]

    def difference(self, kernel: Kernel, width: int) -> float:
        """Return how far a way of attention is from plain products in float32, as a part of the right answer.

        Asked of the first sequence, for the newest place of its prompt, over the cache of the first layer. Places that
        are not in use hold zeros: reading them as well makes the answer smaller by their part of the window.
        """
        shape = self.workload.shape
        self.start(self.workload.prompt - 1)
        keys, values, bias = self.keys[0, :1, :, :width], self.values[0, :1, :, :width], self._bias(width)[:1]
        generator = self.torch.Generator(device=self.device).manual_seed(0)
        sizes = (1, shape.heads, 1, shape.head_dim)
        queries = self.torch.randn(sizes, generator=generator, device=self.device, dtype=self.keys.dtype)
        with self.torch.no_grad():
            with kernel.context():
                found = kernel.attend(queries, keys, values, bias).float()
            wanted = _matmul(self.torch, queries.float(), keys.float(), values.float(), bias.float())
        return float((found - wanted).norm() / wanted.norm())

    def prepare(self, width: int) -> None:
        """Warm up and capture the step of one width. Puts the sequences at their prompt and moves them on from there.

        Raises:
            Exception: the step itself does not run (a kernel that does not fit, memory). That it cannot be captured is
                no error.
        """
        self.start(self.workload.prompt)  # a position past the slot would be a write outside the cache
        if self.graphs_missing is not None:
            self.step(width)
            return
        cuda = self.torch.cuda
        side = side_stream(self.torch, self.device)
        side.wait_stream(cuda.current_stream())
        with cuda.stream(side):
            for _ in range(WARMUP_STEPS):
                self.step(width)
        cuda.current_stream().wait_stream(side)
        cuda.synchronize()
        try:
            if self._pool is None:
                self._pool = cuda.graph_pool_handle()
            graph = cuda.CUDAGraph()
            with cuda.graph(graph, pool=self._pool, stream=side):
                self.step(width)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            self.graphs_missing = " ".join(f"capture failed: {type(error).__name__}: {error}".split())[:300]
            self._graphs.clear()
            return
        self._graphs[width] = graph

    def advance(self, width: int) -> None:
        """Decode one token of every sequence, by its graph where there is one."""
        graph = self._graphs.get(width)
        if graph is not None:
            graph.replay()
        else:
            self.step(width)

    def width_at(self, length: int) -> int:
        """Return the width of the step that attends to ``length`` tokens."""
        return bucket_of(length, self.widths)


def _written(attend: Callable[..., Any]) -> Callable[..., Any]:
    """Attention of a prompt that also writes its keys and values [N, kv_heads, T, D] to the front of its slots."""

    def attend_and_write(q: Any, k: Any, v: Any, keys: Any, values: Any) -> Any:
        length = k.shape[2]
        keys[:, :, :length].copy_(k)
        values[:, :, :length].copy_(v)
        return attend(q, k, v)

    return attend_and_write


def _cached(attend: Callable[..., Any]) -> Callable[..., Any]:
    """Attention of one new token per sequence over the cache, after writing it at the sequence's position."""

    def write_and_attend(q: Any, k: Any, v: Any, keys: Any, values: Any, rows: Any, places: Any, bias: Any) -> Any:
        keys[rows, :, places] = k[:, :, 0]
        values[rows, :, places] = v[:, :, 0]
        width = bias.shape[-1]
        return attend(q, keys[:, :, :width], values[:, :, :width], bias)

    return write_and_attend
