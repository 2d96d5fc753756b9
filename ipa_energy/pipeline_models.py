"""What a pipeline's folder offers to those who run its models: variants, inputs, runners.

A pipeline is a folder with a ``pipeline.py`` that has the four names of :class:`Pipeline`. The
module itself must import without torch or the like: the list of variants is wanted where no model
can run, and heavy imports belong inside ``build`` and ``sample``.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from ipa_energy.errors import ConfigError, UnavailableError
from ipa_energy.registries import PIPELINES
from ipa_energy.shipped import shipped_folder

Runner = Callable[[Any], Any]
"""Serves one batch: preprocessed input in, output out, ``len(output)`` being the batch size."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One model variant of one stage.

    Attributes:
        stage: the stage's task name, e.g. ``crop``.
        name: name in YAML and profile, e.g. ``yolov5n``.
        accuracy: published accuracy as a ratio.
        accuracy_source: what the figure is and where it was published.
        input_shape: shape of one preprocessed input, e.g. ``(3, 640, 640)``.
    """

    stage: str
    name: str
    accuracy: float
    accuracy_source: str
    input_shape: tuple[int, ...]


class Pipeline(Protocol):
    """The names a ``pipeline.py`` must have."""

    @property
    def VARIANTS(self) -> Sequence[Variant]:  # noqa: N802 - a module's constant
        """Every variant of every stage; names are unique within a stage."""
        ...

    def build(self, variant: Variant, *, weights: str | None, threads: int) -> Runner:
        """Load a variant ready to serve on ``threads`` threads; random weights if None."""
        ...

    def sample(self, variant: Variant, batch: int, seed: int) -> Any:
        """A seeded input batch of the right shape and type."""
        ...

    def versions(self) -> dict[str, str]:
        """Package → version of what runs the models, found without importing it."""
        ...


class GpuPipeline(Pipeline, Protocol):
    """What a ``pipeline.py`` has besides if its models also run on a GPU.

    The process sees one GPU. A runner on it takes the batch from ordinary memory and returns when
    the GPU is done: moving the batch is part of the request, and a time taken after the call is
    the whole of it.
    """

    def build(
        self, variant: Variant, *, weights: str | None, threads: int, device: str = "cpu"
    ) -> Runner:
        """As of :class:`Pipeline`; on the GPU if ``device`` is :data:`GPU_DEVICE`."""
        ...

    def gpu(self) -> dict[str, Any]:
        """The GPU as the library sees it.

        Returns:
            ``uuid``, ``name``, ``multiprocessors``, ``memory_bytes`` and the versions it depends
            on, as JSON has them.

        Raises:
            UnavailableError: it sees none; with the fix.
        """
        ...

    def peak_gpu_memory_bytes(self) -> int:
        """The most GPU memory that this process's models have held."""
        ...


Handler = Callable[[Sequence[bytes]], Sequence[bytes]]
"""Serves one batch as it comes over the network: an element in, an element out for each.

It reads an element as what :class:`Signature` declares, and nothing in it is evaluated. One that it
cannot read is a ``ValueError`` that names it by its number in the batch; whatever else it raises
counts as the replica's failure, not the client's."""

SpreadingHandler = Callable[[Sequence[bytes]], Sequence[Sequence[bytes]]]
"""The same where an element becomes several, or none: a list of them for each."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What one element is, on the way into a stage and out of it.

    Attributes:
        takes, gives: media types, e.g. ``image/jpeg``.
        max_bytes: of one element; a larger one is refused unread.
    """

    takes: str
    gives: str
    max_bytes: int = 16 * 2**20


class ServedPipeline(Pipeline, Protocol):
    """What a ``pipeline.py`` has besides if its models can be served.

    What one stage gives is what the next one takes.
    """

    def handler(
        self, variant: Variant, *, weights: str | None, threads: int, device: str
    ) -> Handler | SpreadingHandler:
        """Load a variant ready to answer, on ``cpu`` or :data:`GPU_DEVICE`; see ``build``.

        Where the next stage is to see another number of requests (``requests_per_input``), it is
        called with a keyword ``yields``, the elements that it is to make of one in the mean, and
        returns a :data:`SpreadingHandler`. A pipeline may do without.
        """
        ...

    def signature(self, stage: str) -> Signature:
        """What a stage takes and gives."""
        ...

    def requests(self, seed: int, count: int, *, stage: str | None = None) -> list[bytes]:
        """Seeded elements as they come to a stage; to the first one, from clients, if None.

        Made without the models' libraries.
        """
        ...

    def preload(self) -> None:
        """Import what ``handler`` needs, and no more.

        Called once in the process that replicas are forked from: nothing may be computed there,
        no thread started, no GPU looked at.
        """
        ...


SERVED_NAMES = ("handler", "signature", "requests", "preload")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a forked replica serves.

    Attributes:
        pipeline: folder, file or module of the pipeline (:func:`load_pipeline`).
        stage, variant: one of the pipeline's variants.
        weights: weights file, None for random weights.
        threads: of one operation: the cores that it reserves.
        device: ``cpu``, or ``cuda`` for the GPU that the template's process may use.
        yields: elements that it is to make of one, in the mean.
    """

    pipeline: str
    stage: str
    variant: str
    weights: str | None = None
    threads: int = 1
    device: str = "cpu"
    yields: float = 1.0


def served_pipeline(pipeline: Pipeline, where: str | Path | None = None) -> ServedPipeline:
    """The pipeline, if its models can be served.

    Raises:
        ConfigError: they cannot.
    """
    missing = [name for name in SERVED_NAMES if not hasattr(pipeline, name)]
    if missing:
        raise ConfigError(
            f"the pipeline's models cannot be served: it has no {' and no '.join(missing)}",
            where=where,
            allowed="a pipeline with the names of ServedPipeline (pipelines/README.md)",
        )
    return cast(ServedPipeline, pipeline)


GPU_DEVICE = "cuda"
"""How a pipeline is told to build for the GPU."""

OPENMP = {"OMP_WAIT_POLICY": "PASSIVE"}
"""The environment of every process that runs models, to be profiled or served. Threads that wait
for the next parallel loop would spin otherwise: CPU time, and so joules, for nothing."""

PIPELINES_FOLDER = "pipelines"

GPU_NAMES = ("gpu", "peak_gpu_memory_bytes")


def gpu_pipeline(pipeline: Pipeline) -> GpuPipeline:
    """The pipeline, if its models also run on a GPU.

    Raises:
        ConfigError: they do not.
    """
    missing = [name for name in GPU_NAMES if not hasattr(pipeline, name)]
    if missing:
        raise ConfigError(
            f"the pipeline's models run on CPUs alone: it has no {' and no '.join(missing)}",
            where="--gpu",
            allowed="a pipeline with the names of GpuPipeline (pipelines/README.md)",
        )
    return cast(GpuPipeline, pipeline)


def find_pipeline(name: str, near: Sequence[Path] = (), where: str | Path | None = None) -> str:
    """What :func:`load_pipeline` takes for the pipeline called ``name``.

    Args:
        name: a folder ``pipelines/NAME`` somewhere in ``near``, or a key of
            :data:`~ipa_energy.registries.PIPELINES`.
        near: folders that come before those shipped, in order.
        where: the file that names it, for messages.

    Raises:
        ConfigError: there is none of that name.
    """
    for place in near:
        folder = place / PIPELINES_FOLDER / name
        if (folder / "pipeline.py").is_file():
            return str(folder)
    if name not in PIPELINES:
        raise ConfigError(
            f"no models for the pipeline {name}: no folder {PIPELINES_FOLDER}/{name}",
            where=where,
            allowed=f"{', '.join(PIPELINES)}, or a folder of one's own",
            fix="give the folder with its pipeline.py as --models DIR",
        )
    target = str(PIPELINES[name].target)
    shipped = shipped_folder(PIPELINES_FOLDER) / target
    return str(shipped) if shipped.is_dir() else target


def load_pipeline(reference: str) -> Pipeline:
    """The pipeline module at ``reference``.

    Args:
        reference: a folder with a ``pipeline.py``, a Python file, or a dotted module name.

    Raises:
        ConfigError: there is no such module, or it lacks a name of :class:`Pipeline`.
        UnavailableError: it imports something that is not installed.
    """
    path = Path(reference)
    path = path / "pipeline.py" if path.is_dir() else path
    name = _importable_name(path.resolve()) if path.is_file() else reference
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigError(
                f"no pipeline {reference!r}",
                allowed="a folder with a pipeline.py, a Python file, or a module name",
            ) from error
        raise UnavailableError(f"pipeline {reference!r} needs {error.name}: install it") from error
    except Exception as error:  # whatever a user's module raises
        line = f" in line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise ConfigError(
            f"cannot be imported: {type(error).__name__}{line}: {getattr(error, 'msg', error)}",
            where=path,
            fix="mend the pipeline; python FILE shows the whole story",
        ) from error
    missing = [n for n in ("VARIANTS", "build", "sample", "versions") if not hasattr(module, n)]
    if missing:
        raise ConfigError(f"pipeline {reference!r} lacks {', '.join(missing)}", where=path)
    return cast(Pipeline, module)


def check_requirements(pipeline: Pipeline) -> None:
    """Find out at once, and not model by model, what the pipeline's models lack here.

    A pipeline may name the packages it needs in ``REQUIRES``.

    Raises:
        UnavailableError: some are not installed.
    """
    required: Sequence[str] = getattr(pipeline, "REQUIRES", ())
    missing = [name for name in required if importlib.util.find_spec(name) is None]
    if missing:
        raise UnavailableError(
            f"the pipeline's models need {', '.join(missing)}, not installed here;"
            " fix: install them (for a pipeline of this project: pip install ipa-energy[video])"
        )


def check_precisions(pipeline: Pipeline, wanted: Sequence[str]) -> None:
    """Refuse precisions that a pipeline's models cannot be built in.

    A pipeline that knows several names them in ``PRECISIONS``; its ``build`` has the keyword
    ``precision``.

    Raises:
        ConfigError: one of these is not among them.
    """
    known: Sequence[str] = getattr(pipeline, "PRECISIONS", ())
    for name in wanted:
        if name not in known:
            raise ConfigError(
                f"the pipeline's models cannot be built in {name}",
                where="--precision",
                allowed=", ".join(known) or "PRECISIONS of its pipeline.py, which has none",
            )


def _importable_name(path: Path) -> str:
    """Dotted name of a file within its packages, whose root joins the import path."""
    parts = [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return ".".join(parts)


def find_variant(pipeline: Pipeline, stage: str, name: str) -> Variant:
    """The variant ``name`` of ``stage``.

    Raises:
        ConfigError: the pipeline has no such variant.
    """
    for variant in pipeline.VARIANTS:
        if (variant.stage, variant.name) == (stage, name):
            return variant
    known = ", ".join(f"{variant.stage}/{variant.name}" for variant in pipeline.VARIANTS)
    raise ConfigError(f"no variant {stage}/{name}", allowed=known)
