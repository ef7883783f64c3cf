"""One call for each evaluation: `attack`, `tune`, `bench` and `report`, with results that a notebook shows as tables.

    import jr_onnx
    run = jr_onnx.attack("model.onnx", "mnist:DIR", kappa=0.5, eps=0.1, preprocess="mnist")
    jr_onnx.report(run, "report.html")

They make the requests of `evaluate_robustness`, `tune_kappa` and `benchmark` from plain arguments. The packages of the
same names are called as these functions: `jr_onnx.attack(...)` is `jr_onnx.api.attack(...)`, and `jr_onnx.attack.PGD`
is an attack.
"""

from __future__ import annotations

import importlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jr_onnx.errors import require

if TYPE_CHECKING:
    from pandas import DataFrame

    from jr_onnx.bench.records import BenchReport
    from jr_onnx.data import ImageData, Preprocessing
    from jr_onnx.evaluation.summary import Evaluation
    from jr_onnx.kappa import Kappa
    from jr_onnx.report import Report
    from jr_onnx.tune.records import TuneResult

Rows = list[dict[str, object]]


class Shown(ABC):
    """Base of the results: a short `repr`, a table in a notebook, a data frame where pandas is installed."""

    @property
    @abstractmethod
    def title(self) -> str:
        """The result in one line."""

    @abstractmethod
    def rows(self) -> Rows:
        """Return the figures, one dictionary a row."""

    def __repr__(self) -> str:
        return self.title

    def _repr_html_(self) -> str:
        rows = self.rows()
        head = "".join(f"<th>{escape(name)}</th>" for name in rows[0]) if rows else ""
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_text(cell))}</td>" for cell in row.values()) + "</tr>" for row in rows
        )
        return f"<p><strong>{escape(self.title)}</strong></p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"  # noqa: E501

    def to_dataframe(self) -> DataFrame:
        """Return the rows as a pandas DataFrame.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        frame: DataFrame = importlib.import_module("pandas").DataFrame(self.rows())
        return frame


@dataclass(frozen=True, repr=False)
class AttackRun(Shown):
    """What attacks found.

    Attributes:
        report: Evaluation, recommendation, attackers, curves.
        folder: Where the results are; the same call with it resumes, and `jr-onnx report` reads it.
    """

    report: Report
    folder: Path

    @property
    def evaluation(self) -> Evaluation:
        """The figures."""
        return self.report.evaluation

    @property
    def title(self) -> str:
        """The recommendation."""
        return self.report.recommendation

    def rows(self) -> Rows:
        """Return a row for every attack on every model."""
        return [
            {"model": figures.model, "attack": item.entry, "view": item.view, "norm": item.norm, "eps": item.eps,
             "robust": None if item.minimises else item.robust.value,
             "low": None if item.minimises else item.robust.low, "high": None if item.minimises else item.robust.high,
             "median_relative": item.median_relative if item.minimises else None}
            for figures in self.evaluation.models for item in figures.entries
        ]  # fmt: skip


@dataclass(frozen=True, repr=False)
class Written:
    """A report that was written; a notebook shows its page.

    Attributes:
        report: What it says: evaluation, recommendation, attackers, curves, iterations, examples, sections.
        path: The file.
    """

    report: Report
    path: Path

    def __repr__(self) -> str:
        return f"{self.path}: {self.report.recommendation}"

    def _repr_html_(self) -> str:
        return self.report._repr_html_()


@dataclass(frozen=True, repr=False)
class Tuning(Shown):
    """What a search for kappa found.

    Attributes:
        result: The trade-off and the recommendation.
    """

    result: TuneResult

    @property
    def kappa(self) -> float | None:
        """The recommended kappa; 0 where none is worth it, None where the sites differ."""
        return self.result.points[self.result.recommended].kappa

    @property
    def title(self) -> str:
        """The recommendation and its reason."""
        return f"{self.result.points[self.result.recommended].description}: {self.result.reason}"

    def rows(self) -> Rows:
        """Return a row for every kappa tried."""
        return [
            {"kappa": point.kappa, "clean": point.clean, "drop": point.drop, "objective": point.objective,
             "gain": point.gain, "low": point.low, "high": point.high, "p": point.p_value, "allowed": point.allowed}
            for point in self.result.points
        ]  # fmt: skip


@dataclass(frozen=True, repr=False)
class Benchmark(Shown):
    """What a retrofit costs.

    Attributes:
        result: All measurements.
    """

    result: BenchReport

    @property
    def title(self) -> str:
        """Model and sites."""
        return f"{self.result.model}: {self.result.sites} sites, {len(self.result.cases)} cases"

    def rows(self) -> Rows:
        """Return a row for every variant in every case."""
        return [
            {key: value for key, value in row.to_json().items() if isinstance(value, str | int | float | None)
             and key != "schema"}
            for case in self.result.cases for row in case.rows
        ]  # fmt: skip


def attack(
    model: str | Path,
    data: str | ImageData = "digits",
    *,
    kappa: Kappa | None = None,
    eps: float = 8 / 255,
    norm: Literal["linf", "l2", "l1"] = "linf",
    suite: Literal["paper", "adaptive", "full"] = "adaptive",
    limit: int | None = None,
    preprocess: str = "none",
    seed: int = 0,
    device: str = "auto",
    black_box: bool = False,
    output: str | Path | None = None,
) -> AttackRun:
    """Attack a model and its retrofit with the same suite; see `jr-onnx attack`.

    Args:
        model: An original (with `kappa`), a retrofit, or any classifier to attack alone.
        data: Labelled images, or a specification such as "mnist:DIR".
        kappa: The jump of the retrofit: a number, a mapping of sites, or a random range.
        eps: Budget in pixel scale [0, 1].
        norm: Norm of the budget.
        suite: Which attacks.
        limit: At most so many images, where `data` is a specification.
        preprocess: What the model expects of pixels, where `data` is a specification.
        seed: Random seed.
        device: Where torch computes: auto, cpu or cuda.
        black_box: Only attacks that need no gradients.
        output: Folder of the results, in which an interrupted call resumes; a temporary one by default.

    Raises:
        JrError: Model, data and options do not fit together, or the output cannot be written.
    """
    require("torch", "attack")
    from jr_onnx.attack.suite.evaluate import evaluate_robustness
    from jr_onnx.attack.suite.setup import AttackRequest
    from jr_onnx.kappa import KappaPlan
    from jr_onnx.report import read

    images, preprocessing = _data(data, preprocess, "test", limit)
    folder = Path(output) if output is not None else Path(tempfile.mkdtemp(prefix="jr-onnx-attack-"))
    request = AttackRequest(
        model=Path(model), data=images, preprocessing=preprocessing, device=device,
        plan=None if kappa is None else KappaPlan.of(kappa), suite=suite, norm=norm, eps=eps, out=folder, seed=seed,
        black_box=black_box,
    )  # fmt: skip
    evaluate_robustness(request)
    return AttackRun(read([folder]), folder)


def tune(
    model: str | Path,
    data: str | ImageData = "digits",
    *,
    grid: Sequence[float] = (),
    objective: Literal["adaptive", "paper", "black-box"] = "adaptive",
    attacked: int = 200,
    max_drop: float = 0.01,
    per_site: bool = False,
    limit: int | None = None,
    preprocess: str = "none",
    device: str = "auto",
) -> Tuning:
    """Choose kappa on validation data, and say whether any is worth it; see `jr-onnx tune`.

    Args:
        model: An original, or a retrofit, whose kappas are ignored.
        data: Validation images, or a specification, whose validation split is taken.
        grid: Kappas to try; empty for quantiles of the pre-activations.
        objective: What kappa is chosen for.
        attacked: How many images are attacked.
        max_drop: Largest allowed drop of clean accuracy, as a share.
        per_site: Search site by site too.
        limit: At most so many images, where `data` is a specification.
        preprocess: What the model expects of pixels, where `data` is a specification.
        device: Where torch computes.

    Raises:
        JrError: Model, data and options do not fit together.
    """
    require("torch", "attack")
    from jr_onnx.tune import Objective, TuneRequest, tune_kappa

    images, preprocessing = _data(data, preprocess, "validation", limit)
    request = TuneRequest(
        model=Path(model), data=images, preprocessing=preprocessing, device=device, grid=tuple(grid),
        objective=Objective(name=objective), attacked=attacked, max_drop=max_drop, per_site=per_site,
    )  # fmt: skip
    return Tuning(tune_kappa(request))


def bench(
    model: str | Path,
    *,
    kappa: float | None = None,
    rounds: int = 50,
    batch: Sequence[int] = (1,),
    footprint: bool = True,
) -> Benchmark:
    """Measure what a retrofit costs against its original, in one interleaved run; see `jr-onnx bench`.

    Args:
        model: An original (with `kappa`) or a retrofit.
        kappa: The jump of every site.
        rounds: Runs of every variant.
        batch: Batch sizes to compare.
        footprint: Measure opening time and memory in fresh processes, too.

    Raises:
        JrError: The model cannot be measured.
    """
    from jr_onnx.bench import BenchRequest, benchmark

    request = BenchRequest(Path(model), kappa, batches=tuple(batch), rounds=rounds, with_footprint=footprint)
    return Benchmark(benchmark(request))


def report(
    runs: AttackRun | str | Path | Sequence[str | Path],
    path: str | Path,
    *,
    results: Sequence[Tuning | Benchmark] = (),
    form: Literal["html", "md", "csv", "json"] = "html",
) -> Written:
    """Write what attacks found as one page, or as Markdown, CSV or JSON; see `jr-onnx report`.

    Args:
        runs: A result of `attack`, or the folders of shards and of runs at other budgets, and the result files of other
            commands.
        path: The file.
        results: What `tune` and `bench` found; each becomes a section.
        form: What to write.

    Raises:
        JrError: A folder holds no results, or the file cannot be written.
    """
    from jr_onnx.report import write
    from jr_onnx.results import gather

    if isinstance(runs, AttackRun):
        paths = [runs.folder]
    else:
        paths = [Path(runs)] if isinstance(runs, str | Path) else [Path(item) for item in runs]
    found = gather(paths, [item.result for item in results])
    write(found, Path(path), form)
    return Written(found, Path(path))


def _data(data: str | ImageData, preprocess: str, split: str, limit: int | None) -> tuple[ImageData, Preprocessing]:
    from jr_onnx.data import Preprocessing, load

    chosen = Preprocessing.parse(preprocess)
    images = load(data, split=split, limit=limit, preprocessing=chosen) if isinstance(data, str) else data
    return images, images.restored(chosen)


def _text(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
