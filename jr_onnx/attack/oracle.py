"""Every evaluation of the model by an attack goes through an `Oracle`, which slices, counts and averages.

It cuts a batch into slices that fit the processor's cache, keeps count of passes, of non-finite values and of
zero gradients per sample, averages over draws of a random model (expectation over transformation, Athalye et al.,
2018), and takes the gradient from another model (transfer) or backward pass (BPDA) than the verdict if asked to.

Verdicts are evaluated under `no_grad`, not `inference_mode`: it is as fast for networks, and a model that keeps a
constant from its first evaluation could not differentiate with an inference tensor later.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from jr_onnx.attack import accelerator, cpu
from jr_onnx.attack.history import JudgeHistory
from jr_onnx.attack.noise import Noise
from jr_onnx.attack.objectives import Objective, decided
from jr_onnx.attack.target import Target

T = TypeVar("T")
Computation = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]
"""From logits (n, K) with a graph, leaf (n, C, H, W) and aim (n, 2) to tensors of n rows."""
Evaluate = Callable[[Tensor], Tensor]
Screen = Callable[[Tensor, Tensor], Tensor]
"""From judged logits (n, K) and rows (n,) to the samples (n,) that need no gradient any more."""


class Tally:
    """Counts per sample of a batch."""

    def __init__(self, count: int, device: torch.device | None = None) -> None:
        """Start at zero for `count` samples."""
        self.forward = torch.zeros(count, dtype=torch.int64, device=device)
        self.backward = torch.zeros_like(self.forward)
        self.nonfinite = torch.zeros_like(self.forward)
        self.zero_gradient = torch.zeros_like(self.forward)

    def add(self, other: Tally) -> None:
        """Count what another tally of the same samples has counted."""
        self.forward += other.forward
        self.backward += other.backward
        self.nonfinite += other.nonfinite
        self.zero_gradient += other.zero_gradient


@dataclass(slots=True)
class QueryResult:
    """The answer to one question about n samples.

    Attributes:
        logits: Of the judged model (n, K).
        kept: The samples (n,) that continue; the others were screened out, or idle.
        parts: What the work returned, with one row per kept sample; in an oracle with idle samples one per sample.
    """

    logits: Tensor
    kept: Tensor
    parts: tuple[Tensor, ...]


class Oracle:
    """A batch's access to the judged model and to the model that gives gradients."""

    def __init__(
        self,
        judge: Target,
        source: Target,
        tally: Tally,
        seed: int,
        draws: int,
        pool: ThreadPoolExecutor | None = None,
        history: JudgeHistory | None = None,
        *,
        idling: bool = False,
    ) -> None:
        """Bind the models; see the module's docstring.

        Args:
            judge: Decides about success.
            source: Gives gradients; the judge itself, another backward pass of it, or another model.
            tally: Where to count.
            seed: Of the draws of a random model.
            draws: How many draws of a random model to average; one is what a naive attack does.
            pool: Threads for slices.
            history: Where to record the judge's logits.
            idling: Samples that are done stay in the batch for a while, so that no question waits for the device.
        """
        self.judge = judge
        self.source = source
        self.tally = tally
        self.draws = draws
        self.pool = pool
        self.history = history
        self.idle = torch.zeros_like(tally.forward, dtype=torch.bool) if idling else None
        self._noise = Noise(seed)
        self._shared = judge.same_forward(source)
        self._step = 0

    @property
    def varies(self) -> bool:
        """Whether the same question at the next step may get another answer: every step has a fresh draw then."""
        return self.judge.is_random and self.draws == 1

    def logits(self, x: Tensor, rows: Tensor) -> Tensor:
        """Judge inputs (n, ...) of the samples `rows` (n,): logits (n, K), averaged if the model is random."""
        judged = self._judge(x, rows)
        self._record(x, rows, judged)
        return judged

    def gradient(
        self, x: Tensor, rows: Tensor, objective: Objective, aim: Tensor, screen: Screen | None = None
    ) -> QueryResult:
        """Judge inputs and differentiate an objective.

        Args:
            x: Inputs (n, C, H, W).
            rows: Their positions in the batch (n,).
            objective: What to differentiate, of the source's logits.
            aim: Classes for the objective (n, 2).
            screen: Returns from the judged logits which samples need no gradient any more.

        Returns:
            An evaluation whose parts are the objective's values (m,) and gradients (m, C, H, W), averaged over
            the draws of a random source. Non-finite entries of a gradient are counted and then zero.
        """

        def work(logits: Tensor, leaf: Tensor, aim: Tensor) -> tuple[Tensor, ...]:
            values = objective(logits, aim)
            (gradient,) = torch.autograd.grad(values.sum(), leaf)
            return values.detach(), gradient, _largest(gradient)  # here, while it is in the cache, and on a thread

        found = self.differentiate(x, rows, aim, work, screen=screen)
        values, gradient, *rest = found.parts
        found.parts = (values, gradient)
        if len(values) == 0:
            return found
        # The mean over draws has a largest entry of its own.
        largest = rest[0] if self.draws == 1 else _largest(gradient)
        if self.idle is None:
            good = self._note(rows[found.kept], largest)
            clean = bool(good.all())
        else:
            self._note(rows, torch.where(found.kept, largest, 1.0))
            clean = False
        if not clean:
            found.parts = (values, torch.where(torch.isfinite(gradient), gradient, 0.0))
        return found

    def differentiate(
        self,
        x: Tensor,
        rows: Tensor,
        aim: Tensor,
        work: Computation,
        *,
        backwards: int = 1,
        screen: Screen | None = None,
    ) -> QueryResult:
        """Judge inputs and run a differentiation of the source's logits, `backwards` backward passes long."""
        if not self._shared:
            found = self._apart(x, rows, aim, work, backwards, screen)
        elif self.judge.is_random and self.draws > 1:
            found = self._averaged(x, rows, aim, work, backwards, screen)
        else:
            found = self._in_one(x, rows, aim, work, backwards, screen)
        self._record(x, rows, found.logits, None if screen is None else ~found.kept)
        return found

    def _record(self, x: Tensor, rows: Tensor, judged: Tensor, final: Tensor | None = None) -> None:
        self._step += 1
        self.tally.nonfinite[rows] += (~decided(judged) & self.active(rows)).long()
        if self.history is not None:
            if self.idle is not None:  # idle samples have moved on from the points that count
                final = self.active(rows) if final is None else final & self.active(rows)
            self.history.record(x, rows, judged, final)

    def _in_one(
        self, x: Tensor, rows: Tensor, aim: Tensor, work: Computation, backwards: int, screen: Screen | None
    ) -> QueryResult:
        """Let every forward pass serve the verdict and the gradient."""

        def one(piece: slice, evaluate: Evaluate) -> QueryResult:
            return self._one_forward(evaluate, x[piece], rows[piece], aim[piece], work, backwards, screen)

        answers = self._map(one, x, self.source.draw(self._key(0)))
        kept = torch.cat([answer.kept for answer in answers])
        return QueryResult(torch.cat([a.logits for a in answers]), kept, _join([a.parts for a in answers], x))

    def _averaged(
        self, x: Tensor, rows: Tensor, aim: Tensor, work: Computation, backwards: int, screen: Screen | None
    ) -> QueryResult:
        """Let every draw serve the mean verdict and the mean gradient.

        The verdict is known after the last draw, so that the samples it screens out were differentiated in vain, once.
        To ask for it first would cost all samples another forward pass for every draw.
        """

        def one(evaluate: Evaluate, leaf: Tensor, aim: Tensor) -> tuple[Tensor, ...]:
            logits = evaluate(leaf)
            return logits.detach(), *work(logits, leaf, aim)

        several: list[Tensor] = []
        total: tuple[Tensor, ...] = ()
        for copies, (logits, *parts) in self._every_draw(x, aim, self.draws, one):
            several += logits.chunk(copies)
            total = _added(total, parts, copies)
        judged = _mean(several)
        kept = self._kept(judged, rows, screen)
        self.tally.forward[rows] += self.draws * self.active(rows)
        self.tally.backward[rows] += self.draws * backwards * kept
        means = tuple(part / self.draws for part in total)
        return QueryResult(judged, kept, means if self.idle is not None else tuple(part[kept] for part in means))

    def _apart(
        self, x: Tensor, rows: Tensor, aim: Tensor, work: Computation, backwards: int, screen: Screen | None
    ) -> QueryResult:
        """Judge first and differentiate another model for what is left then."""
        judged = self._judge(x, rows)
        kept = self._kept(judged, rows, screen)
        draws = self.draws if self.source.is_random else 1
        self.tally.forward[rows] += draws * kept
        self.tally.backward[rows] += draws * backwards * kept
        if self.idle is None:
            if not bool(kept.any()):
                return QueryResult(judged, kept, _join([], x))
            x, aim = x[kept], aim[kept]

        def one(evaluate: Evaluate, leaf: Tensor, aim: Tensor) -> tuple[Tensor, ...]:
            return work(evaluate(leaf), leaf, aim)

        total: tuple[Tensor, ...] = ()
        for copies, parts in self._every_draw(x, aim, draws, one):
            total = _added(total, parts, copies)
        return QueryResult(judged, kept, total if draws == 1 else tuple(part / draws for part in total))

    def _every_draw(
        self, x: Tensor, aim: Tensor, draws: int, one: Callable[[Evaluate, Tensor, Tensor], tuple[Tensor, ...]]
    ) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
        """Yield what `one` makes of the source's draws: (number of draws, parts with so many copies of the samples)."""
        for key, copies in self._groups(self.source, draws, x):
            many, aims = _copied(x, copies), _copied(aim, copies)

            def piecewise(
                piece: slice, evaluate: Evaluate, many: Tensor = many, aims: Tensor = aims
            ) -> tuple[Tensor, ...]:
                return one(evaluate, many[piece].detach().requires_grad_(), aims[piece])

            yield copies, _join(self._map(piecewise, many, self.source.draw(key)), x)

    def _map(self, one: Callable[[slice, Evaluate], T], x: Tensor, view: Target) -> list[T]:
        """Ask a view about every slice: on the threads, if there are any and the model allows it."""
        pieces = _slices(len(x), x)
        if self.pool is None or len(pieces) == 1 or not view.threaded:
            return [one(piece, view.logits) for piece in pieces]
        return list(self.pool.map(one, pieces, itertools.repeat(view.logits)))

    def _one_forward(
        self,
        evaluate: Evaluate,
        x: Tensor,
        rows: Tensor,
        aim: Tensor,
        work: Computation,
        backwards: int,
        screen: Screen | None,
    ) -> QueryResult:
        """Serve the verdict and the gradient from one forward pass.

        Samples that are already done would cost `backwards` useless passes each; where that exceeds the price of
        another forward pass (about one backward pass) of the others, the others are evaluated again alone.
        The count is what the attack asked for, one forward pass and `backwards` for every sample that continues, so
        that it does not depend on the rest of the batch.
        """
        leaf = x.detach().requires_grad_()
        logits = evaluate(leaf)
        self.tally.forward[rows] += self.active(rows).long()
        judged = logits.detach()
        kept = self._kept(judged, rows, screen)
        self.tally.backward[rows] += backwards * kept
        if self.idle is not None:
            return QueryResult(judged, kept, work(logits, leaf, aim))
        left = int(kept.sum())
        if left == 0:
            return QueryResult(judged, kept, ())
        if (len(x) - left) * backwards > left:
            leaf = x[kept].detach().requires_grad_()
            return QueryResult(judged, kept, work(evaluate(leaf), leaf, aim[kept]))
        parts = work(logits, leaf, aim)
        return QueryResult(judged, kept, parts if left == len(x) else tuple(part[kept] for part in parts))

    def _judge(self, x: Tensor, rows: Tensor) -> Tensor:
        """Return logits, or for a random model the logarithm of the mean probability over the draws."""
        draws = self.draws if self.judge.is_random else 1
        self.tally.forward[rows] += draws * self.active(rows)
        several: list[Tensor] = []
        for key, copies in self._groups(self.judge, draws, x):
            many = _copied(x, copies)

            def one(piece: slice, evaluate: Evaluate, many: Tensor = many) -> Tensor:
                with torch.no_grad():
                    return evaluate(many[piece])

            several += torch.cat(self._map(one, many, self.judge.draw(key))).chunk(copies)
        return _mean(several)

    def _groups(self, view: Target, draws: int, x: Tensor) -> Iterator[tuple[int, int]]:
        """Yield (key, number of draws) so that each number of copies of the samples fits into one slice.

        A model whose rows have random numbers of their own answers several draws in one evaluation.
        """
        rows = _slices(draws * len(x), x)[0].stop // max(1, len(x))
        most = max(1, rows) if view.draws_apart and len(x) else 1
        for number, start in enumerate(range(0, draws, most)):
            yield self._key(number), min(most, draws - start)

    def _key(self, number: int) -> int:
        """Return the key of a draw: the same ones at every step if several are averaged, else a fresh one.

        Common random numbers keep the averaged objective one fixed function, which an iteration can climb.
        """
        step = self._step if self.draws == 1 else 0
        return self._noise.word("model draw", step * self.draws + number)

    def _kept(self, judged: Tensor, rows: Tensor, screen: Screen | None) -> Tensor:
        active = self.active(rows)
        return active if screen is None else active & ~screen(judged, rows)

    def active(self, rows: Tensor) -> Tensor:
        """Return which samples `rows` (n,) are not idle."""
        return torch.ones_like(rows, dtype=torch.bool) if self.idle is None else ~self.idle[rows]

    def rest(self, rows: Tensor, done: Tensor) -> None:
        """Let those of the samples `rows` (n,) that are `done` (n,) idle: they are neither counted nor judged."""
        if self.idle is not None:
            self.idle[rows] |= done

    def wake(self, rows: Tensor) -> None:
        """Begin again with the samples `rows` (n,)."""
        if self.idle is not None:
            self.idle[rows] = False

    def _note(self, rows: Tensor, largest: Tensor) -> Tensor:
        """Count gradients that are not finite, or zero, by their largest entry (n,); return who has a finite one."""
        good = torch.isfinite(largest)
        self.tally.nonfinite[rows] += (~good).long()
        self.tally.zero_gradient[rows] += (largest == 0).long()
        return good


def _slices(count: int, like: Tensor) -> list[slice]:
    """Cut `count` samples like those of a batch (n, C, H, W), as suits its device."""
    cut = accelerator.slices if accelerator.runs_apart(like.device) else cpu.slices
    return cut(count, like[0].numel())


def _copied(x: Tensor, copies: int) -> Tensor:
    """Repeat a batch (n, ...) to (copies * n, ...), whole batch after whole batch."""
    return x if copies == 1 else x.repeat(copies, *(1 for _ in x.shape[1:]))


def _largest(gradient: Tensor) -> Tensor:
    """Return the largest absolute entry (n,) of each gradient; NaN and infinity carry through."""
    return gradient.flatten(1).abs().amax(1)


def _join(parts: list[tuple[Tensor, ...]], x: Tensor) -> tuple[Tensor, ...]:
    """Put the parts of slices together; slices without a remaining sample have none."""
    full = [part for part in parts if part]
    return tuple(torch.cat(column) for column in zip(*full, strict=True)) if full else (x[:0, 0, 0, 0], x[:0])


def _mean(several: list[Tensor]) -> Tensor:
    """Return the logits (n, K) of one draw, or the logarithm of the sum of the probabilities of several."""
    return several[0] if len(several) == 1 else torch.stack(several).log_softmax(2).logsumexp(0)


def _added(total: tuple[Tensor, ...], parts: Sequence[Tensor], copies: int) -> tuple[Tensor, ...]:
    """Add to the sums over draws what one evaluation of so many copies of the samples found."""
    sums = tuple(part if copies == 1 else part.view(copies, -1, *part.shape[1:]).sum(0) for part in parts)
    return tuple(a + b for a, b in zip(total, sums, strict=True)) if total else sums
