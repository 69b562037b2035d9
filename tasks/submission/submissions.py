"""Submission folders: what DataComp's leaderboard is given, put together and checked; nothing is uploaded.

    <scale>_scale/results.jsonl      the results, byte for byte
    <scale>_scale/samples/<subset>   the subset file, byte for byte
    submission.json                  what the leaderboard keeps: sizes, settings, method, main metrics, averages
    README.md                        method text and table of scores, for the public
    command.txt                      the official command that would submit it

The first two are what evaluate.py puts on a model hub. Checked: the subset (typed, sorted, within the pool, no larger
than its scale's), the results (`eval_results`), the dataset size (stated, in the subset, in the shards that were
trained on), the training record, and that everything the leaderboard asks for is said. Everything wrong is told at
once. The same input gives the same bytes: the time of submission is the submitter's to say.
"""

from __future__ import annotations

import shlex
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, StringConstraints, ValidationError

from mgd_core.errors import UserError
from tasks.evaluation.datacomp import Scale, scale_config
from tasks.files.artefacts import file_digest, publish_bytes, publish_json, read_json
from tasks.files.export_files import check_place, told_writing
from tasks.files.option_types import Strict
from tasks.homes.working_copies import removed
from tasks.pool.record import load_pool
from tasks.submission.eval_results import Results, read_results, refuse
from tasks.submission.train_info import read_train_info, scale_problems
from tasks.subset.files import MAGIC, Subset, everything, foreign_uids, read_subset

T = TypeVar("T")
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
SUBMITTED = ("README.md", "command.txt", "submission.json")


class SubmissionError(UserError, ValueError):
    """A submission that contradicts itself, or lacks something."""


class Method(Strict):
    """What the submitter says: a TOML file of these keys."""

    name: Text = Field(description="name of the method, shown in public")
    author: Text = Field(description="who submits, shown in public")
    email: Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")] = Field(description="not shown")
    track: Literal["filtering", "byod"] = Field(
        description="filtering: from DataComp's pool; byod: bring your own data"
    )
    hf_username: Text = Field(description="whose model repository takes the files")
    hf_repo_name: Text = Field(description="that repository")
    writeup: Text | None = Field(default=None, description="address of a paper or article")
    text: Text = Field(description="what was done, for readers of the repository (Markdown)")


class SubmissionOptions(Strict):
    """What goes in, and what it is checked against."""

    subset: Path
    results: Path
    method: Path
    scale: Scale
    dataset_size: int | None = Field(default=None, ge=1, description="what was going to be stated; None: what is found")
    pool: Path | None = Field(default=None, description="directory of the pool; None: not checked against it")
    shards: Path | None = Field(default=None, description="shards that were trained on; None: not checked")
    info: Path | None = Field(default=None, description="info.pkl of the training; None: not checked")
    overwrite: bool = Field(default=False, description="replace another submission folder")


@dataclass(frozen=True)
class Submission:
    """A folder that was written, and the record in it."""

    path: Path
    record: dict[str, Any]


def write_submission(options: SubmissionOptions, out: str | Path) -> Submission:
    """Check everything and write the folder; raises SubmissionError with all contradictions, and the readers'
    errors."""
    out = Path(out)
    problems: list[str] = []
    method = _tried(problems, lambda: read_method(options.method))
    subset = _tried(problems, lambda: _read_npy(options.subset))
    results = _tried(problems, lambda: read_results(options.results))
    size = subset.total if subset else 0
    if subset is not None:
        size = _checked_size(options, subset, problems)
        problems += _tried(problems, lambda: _pool_problems(options, subset, method)) or []
    if options.info is not None:
        info = options.info
        problems += _tried(problems, lambda: scale_problems(read_train_info(info), options.scale)) or []
    _tried(problems, lambda: _refuse_foreign(out, options))
    refuse(f"{out}: not written", problems, SubmissionError)
    assert method and subset and results, "what could not be read was refused"
    record = _record(options, method, subset, results, size)
    with told_writing(out):
        _replace(out.absolute(), lambda staging: _write(staging, options, method, results, record))
    return Submission(out, record)


def _tried(problems: list[str], read: Callable[[], T]) -> T | None:
    """What `read` gives, or None and its complaint added to the problems: all of them are to be told at once."""
    try:
        return read()
    except (UserError, OSError, ValueError) as error:  # ValueError: a record that is none
        where = getattr(error, "filename", None) if not isinstance(error, UserError) else None
        problems.append(f"{where}: {error.strerror}" if isinstance(error, OSError) and where else str(error))
        return None


def _replace(out: Path, write: Callable[[Path], None]) -> None:
    """Make `out` anew by writing a directory beside it, whole or not at all."""
    staging = out.parent / f".{out.name}.submission"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        write(staging)
        removed(out)
        shutil.rmtree(out, ignore_errors=True)
        staging.rename(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def read_method(path: Path) -> Method:
    """The method in a TOML file; raises SubmissionError naming every key that is wrong."""
    try:
        return Method.model_validate(tomllib.loads(path.read_text("utf-8-sig")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SubmissionError(f"{path}: not TOML: {error}") from error
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, one['loc']))}: {one['msg'].lower()}" for one in error.errors()]
        known = ", ".join(Method.model_fields)
        raise SubmissionError(f"{path}: {'; '.join(wrong)}. Its keys are {known}") from error


def _read_npy(path: Path) -> Subset:
    with open(path, "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise SubmissionError(f"{path}: not a .npy file, which is what is submitted: mgd export --format datacomp")
    return read_subset(path)


def _checked_size(options: SubmissionOptions, subset: Subset, problems: list[str]) -> int:
    """Samples that were trained on; what contradicts it is added to the problems."""
    size = subset.total
    if options.shards is not None:
        shards = options.shards
        size = _tried(problems, lambda: _trained_size(shards)) or size
        trained = _tried(problems, lambda: read_subset(shards / "sample_ids.npy"))
        if trained is None:
            return size
        if trained.digest != subset.digest:
            problems.append(
                f"{options.shards} was made from another subset ({trained.total:,} samples, {len(trained.uids):,} "
                f"distinct) than {options.subset} ({subset.total:,}, {len(subset.uids):,} distinct)"
            )
        elif size > subset.total:
            problems.append(f"{options.shards} holds {size:,} samples, the subset {subset.total:,}")
    if options.dataset_size not in (None, size):
        where = f"in {options.shards}" if options.shards else f"in {options.subset}"
        problems.append(f"the stated dataset size is {options.dataset_size:,}, there are {size:,} samples {where}")
    return size


def _trained_size(shards: Path) -> int:
    """Samples in shards that were trained on, as they say themselves."""
    meta = read_json(shards / "meta.json")
    count = meta.get("output_count") if isinstance(meta, dict) else None
    if not isinstance(count, int):
        raise SubmissionError(f"{shards / 'meta.json'}: no output_count, so these are no shards of a resharder")
    return count


def _pool_problems(options: SubmissionOptions, subset: Subset, method: Method | None) -> list[str]:
    problems, largest = [], scale_config(options.scale).pool
    filtering = method is None or method.track == "filtering"
    if filtering and len(subset.uids) > largest:
        problems.append(f"{len(subset.uids):,} distinct samples; the {options.scale} pool has {largest:,}")
    if options.pool is not None:
        record = load_pool(options.pool)
        if record is None:
            problems.append(f"{options.pool} is no finished pool (it has no pool.json)")
        elif filtering:
            foreign = int(foreign_uids(subset.uids, everything(record.samples_path).uids).sum())
            problems += [f"{foreign:,} of {len(subset.uids):,} uids are not in {options.pool}"] * (foreign > 0)
    return problems


def _record(options: SubmissionOptions, method: Method, subset: Subset, results: Results, size: int) -> dict[str, Any]:
    """The leaderboard's record, less the time, with averages and digests."""
    config = scale_config(options.scale)
    return {
        "scale": options.scale,
        "model": config.model,
        "batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "samples_seen": config.train_num_samples,
        "dataset_size": size,
        "subset_size": subset.total,
        "distinct_samples": len(subset.uids),
        **{f"method_{name}" if name == "name" else name: value for name, value in method if name != "text"},
        "scores": results.by_name,
        "aggregates": results.aggregates,
        "digests": {"subset": file_digest(options.subset), "results": file_digest(options.results)},
    }


def _write(staging: Path, options: SubmissionOptions, method: Method, results: Results, record: dict[str, Any]) -> None:
    folder = staging / f"{options.scale}_scale"
    publish_bytes(folder / "results.jsonl", options.results.read_bytes())
    (folder / "samples").mkdir()
    shutil.copyfile(options.subset, folder / "samples" / options.subset.name)
    publish_bytes(staging / "README.md", _readme(options, method, results, record).encode())
    # Not in the README: the address of the submitter is not for the public.
    publish_bytes(staging / "command.txt", f"{_command(options, method, record)}\n".encode())
    publish_json(staging / "submission.json", record)


def _readme(options: SubmissionOptions, method: Method, results: Results, record: dict[str, Any]) -> str:
    """Method text and scores."""
    scores = {**results.aggregates, **dict(sorted(results.by_name.items()))}
    table = "\n".join(f"| {name} | {score:.4f} |" for name, score in scores.items())
    seen = f"each seen {record['samples_seen'] / record['dataset_size']:,.1f} times on average"
    sizes = f"{record['dataset_size']:,} samples ({record['distinct_samples']:,} distinct), {seen}"
    about = f"{method.author}. DataComp, {options.scale} scale, {method.track} track; trained on {sizes}."
    about += f" {method.writeup}" if method.writeup else ""
    return f"# {method.name}\n\n{about}\n\n{method.text}\n\n| task | main metric |\n| --- | --- |\n{table}\n"


def _command(options: SubmissionOptions, method: Method, record: dict[str, Any]) -> str:
    """The official command line."""
    said = {
        "track": method.track,
        "method_name": method.name,
        "author": method.author,
        "email": method.email,
        "hf_username": method.hf_username,
        "hf_repo_name": method.hf_repo_name,
        "dataset-size": record["dataset_size"],
        "samples": f"{options.scale}_scale/samples/{options.subset.name}",
        **({"writeup": method.writeup} if method.writeup else {}),
    }
    flags = [part for name, value in said.items() for part in (f"--{name}", str(value))]
    return shlex.join(["python", "evaluate.py", "--train_output_dir", "TRAIN_OUTPUT", "--submit", *flags])


def _refuse_foreign(out: Path, options: SubmissionOptions) -> None:
    """Raise SubmissionError, or ExportError, unless `out` is absent or empty, or may be replaced."""
    check_place(out)
    if out.exists() and not out.is_dir():
        raise SubmissionError(f"{out}: is a file; a submission is a directory: name another")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    known = {*SUBMITTED, *(f"{scale}_scale" for scale in ("small", "medium", "large", "xlarge"))}
    if not out.is_dir() or not {path.name for path in out.iterdir()} <= known:
        raise SubmissionError(
            f"{out}: holds something that is no submission, so it is left alone; name another directory"
        )
    if not options.overwrite:
        raise SubmissionError(f"{out}: holds a submission; name another directory, or replace it with --overwrite")
