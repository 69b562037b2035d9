"""The convention of ranks: W processes that train one model together, and what each of them holds.

The rows of a batch are spread over ranks as they are over chunks (mgd_core.autodiff.derivatives): each rank encodes its
own, all gather the features, every rank couples the whole batch, and each pulls its own rows' cotangents back. The flat
vectors of a state are cut into slices: an optimizer's step is elementwise, so a rank holds its slice of the parameters,
the moments and the adjoint, and the parameters are gathered to encode with. One of four things is true of a tensor that
more than one rank knows, and its type says which:

* :data:`Replicated`: the same on every rank, to the bit;
* :data:`OwnRows`: this rank's rows of a batch; the batch is the ranks' rows in the order of their numbers;
* :data:`Slice`: this rank's part of the last axis of a flat vector, (S,) or (Q, S);
* :data:`Partial`: a summand; what is meant is the sum over ranks. What every rank computes from replicated numbers
  alone (the direct part that theta has in a loss, say its scale) is one rank's summand only, the first's.

No collective sees an autograd graph or a dual: torch's have no forward mode, and drop tangents without a word where no
input requires a gradient. A gather's tangent is the gather of the tangents, and its adjoint each rank's own rows; both
are taken here by hand, on plain tensors (``plain`` sees to it).

Two operations carry everything: a gather, and an exchange of slices whose summands are added in the order of the ranks
by the slice's owner. So W fixes the bits, whatever algorithm the backend takes. ``sent`` counts bytes: a gather sends
what a rank has to W - 1 others, an exchange each of them its part.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, NewType, TypeVar, cast

import torch
import torch.autograd.forward_ad as fwd
import torch.distributed as dist
from torch import Tensor

Replicated = NewType("Replicated", Tensor)
OwnRows = NewType("OwnRows", Tensor)
Slice = NewType("Slice", Tensor)
Partial = NewType("Partial", Tensor)
T = TypeVar("T")


class Ranks:
    """A process that trains alone: everything is its own, and nothing is sent."""

    number = 0
    count = 1
    sent = 0

    def __repr__(self) -> str:
        return f"rank {self.number} of {self.count}"

    @property
    def first(self) -> bool:
        """Whether what is replicated counts here."""
        return self.number == 0

    def whole(self, own: Slice, length: int) -> Replicated:
        """The vector (..., length) that the ranks' slices make."""
        return Replicated(own)

    def parameters(self, own: Slice, length: int) -> Replicated:
        """As :meth:`whole`, of parameters: those asked for last are at hand."""
        return Replicated(own)

    def scattered(self, partial: Partial) -> Slice:
        """This rank's slice of the sum of vectors (..., length)."""
        return Slice(partial)

    def cut(self, whole: Replicated) -> Slice:
        """This rank's slice of a vector (..., length)."""
        return Slice(whole)

    def total(self, partial: Partial) -> Replicated:
        """The sum over ranks, of a few numbers."""
        return Replicated(partial)

    def norm(self, own: Slice) -> Replicated:
        """Euclidean norm along the last axis."""
        return Replicated(own.norm(dim=-1) if own.ndim > 1 else own.norm())

    def shares(self, rows: int) -> list[int]:
        """Rows of a batch that each rank has, where this one has ``rows``."""
        return [rows]

    def gathered(self, columns: Sequence[OwnRows], shares: Sequence[int]) -> list[Replicated]:
        """Columns (n, ...) of the whole batch."""
        return [Replicated(x) for x in columns]

    def own(self, column: Replicated, shares: Sequence[int], axis: int = 0) -> OwnRows:
        """This rank's rows of a batch's column."""
        return OwnRows(column)

    def share(self, rows: int) -> slice:
        """The rows of a batch of ``rows`` that fall to this rank."""
        return slice(0, rows)

    def part(self, length: int) -> slice:
        """The elements of a flat vector that fall to this rank."""
        return slice(0, length)

    def told(self, thing: T) -> T:
        """What the first rank has to say, to all."""
        return thing

    def each(self, thing: T) -> list[T]:
        """What every rank has to say, in the order of their numbers."""
        return [thing]

    def anywhere(self, here: bool) -> bool:
        """Whether it is so on any rank."""
        return here


ALONE = Ranks()


class GroupRanks(Ranks):
    """A rank of torch's default process group, of one backend for the CPU and one for the device."""

    def __init__(self, device: str | torch.device = "cpu") -> None:
        """``device``: where small agreements are made; NCCL carries what lies on a GPU only."""
        self.number, self.count = dist.get_rank(), dist.get_world_size()
        self.device = torch.device(device)
        self.sent = 0
        self._asked: tuple[Tensor, Replicated] | None = None

    def whole(self, own: Slice, length: int) -> Replicated:
        size = -(-length // self.count)
        parts = self._gather(_padded(own, size))  # (W, ..., size)
        joined = parts.movedim(0, -2).reshape(*own.shape[:-1], self.count * size)
        return Replicated(joined[..., :length].contiguous())

    def parameters(self, own: Slice, length: int) -> Replicated:
        if self._asked is None or self._asked[0] is not own:
            self._asked = own, self.whole(own, length)
        return self._asked[1]

    def scattered(self, partial: Partial) -> Slice:
        length = partial.shape[-1]
        size = -(-length // self.count)
        parts = _padded(partial, self.count * size).unflatten(-1, (self.count, size)).movedim(-2, 0).contiguous()
        received = self._exchange(parts)
        part = self.part(length)
        return Slice(received[..., : part.stop - part.start].contiguous())

    def cut(self, whole: Replicated) -> Slice:
        return Slice(whole[..., self.part(whole.shape[-1])].clone())

    def total(self, partial: Partial) -> Replicated:
        return Replicated(_summed(self._gather(partial)))

    def norm(self, own: Slice) -> Replicated:
        squares = own.norm(dim=-1).double().square()
        return Replicated(self.total(Partial(squares)).sqrt().to(own.dtype))

    def shares(self, rows: int) -> list[int]:
        return [int(n) for n in self._gather(torch.tensor([rows], device=self.device)).flatten()]

    def gathered(self, columns: Sequence[OwnRows], shares: Sequence[int]) -> list[Replicated]:
        """One gather for each precision that the columns are of."""
        found: list[Replicated | None] = [None] * len(columns)
        most = max(shares)
        for dtype in dict.fromkeys(x.dtype for x in columns):
            at = [i for i, x in enumerate(columns) if x.dtype == dtype]
            widths = [columns[i].shape[1:].numel() for i in at]
            flat = torch.cat([columns[i].reshape(shares[self.number], w) for i, w in zip(at, widths, strict=True)], 1)
            parts = self._gather(torch.cat([flat, flat.new_zeros(most - len(flat), flat.shape[1])]))
            rows = torch.cat([part[:n] for part, n in zip(parts, shares, strict=True)])
            for i, piece in zip(at, rows.split(widths, 1), strict=True):
                found[i] = Replicated(piece.reshape(len(rows), *columns[i].shape[1:]))
        return cast(list[Replicated], found)

    def own(self, column: Replicated, shares: Sequence[int], axis: int = 0) -> OwnRows:
        edges = [0, *accumulate(shares)]
        return OwnRows(column.narrow(axis, edges[self.number], shares[self.number]))

    def share(self, rows: int) -> slice:
        """The first ranks have a row more where W does not divide the batch."""
        each, more = divmod(rows, self.count)
        start = self.number * each + min(self.number, more)
        return slice(start, start + each + (self.number < more))

    def part(self, length: int) -> slice:
        size = -(-length // self.count)
        return slice(min(self.number * size, length), min((self.number + 1) * size, length))

    def told(self, thing: T) -> T:
        said: list[Any] = [thing if self.first else None]
        dist.broadcast_object_list(said, src=0, device=self.device)
        return cast(T, said[0])

    def each(self, thing: T) -> list[T]:
        said: list[Any] = [None] * self.count
        dist.all_gather_object(said, thing)
        return said

    def anywhere(self, here: bool) -> bool:
        return bool(self._gather(torch.tensor([here], dtype=torch.uint8, device=self.device)).any())

    def _gather(self, x: Tensor) -> Tensor:
        """(W, ...) of tensors that have one shape on all ranks."""
        sent = plain(x).contiguous()
        received = sent.new_empty(self.count, *sent.shape)
        if sent.numel():
            dist.all_gather_into_tensor(received.view(-1), sent.view(-1))
        self.sent += (self.count - 1) * sent.nbytes
        return received

    def _exchange(self, parts: Tensor) -> Tensor:
        """The sum of what all ranks have for this one of their ``parts`` (W, ...)."""
        received = torch.empty_like(plain(parts))
        dist.all_to_all_single(received.view(-1), parts.view(-1))
        self.sent += (self.count - 1) * parts[0].nbytes
        return _summed(received)


def plain(x: Tensor) -> Tensor:
    """``x``, which has neither graph nor tangent."""
    assert not x.requires_grad and fwd.unpack_dual(x).tangent is None, "a collective would drop a derivative"
    return x


def common(ranks: Ranks, have: Iterable[T]) -> set[T]:
    """What every rank has."""
    return set.intersection(*ranks.each(set(have)))


def _padded(x: Tensor, length: int) -> Tensor:
    return torch.cat([x, x.new_zeros(*x.shape[:-1], length - x.shape[-1])], -1) if x.shape[-1] < length else x


def _summed(parts: Tensor) -> Tensor:
    """Summands (W, ...), added in the order of their ranks."""
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total
