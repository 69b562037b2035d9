"""Attributions by kronfluence, TRAK and dattri, in a process of their own.

They see what a user of them has: the trained classifier (an MLP with one hidden layer), the training and test pictures.
Each method at several settings; the benchmark reports the best of each, so that nobody loses by a poor choice. The sign
of a method's scores is set by the plain inner product of gradients. Every answer is a matrix (test, training) of
d loss / d weight, up to a positive factor.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).parents[2]
Floats = npt.NDArray[np.float64]
Peer = Callable[["Trained"], Iterator[tuple[str, Any]]]
NAMES = ("kronfluence", "trak", "dattri")
TOGETHER = 50  # test pictures whose influence functions are computed together
MEMORY = 8 << 30  # bytes of address space: a peer that needs more fails alone
NOISE = {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}


class Trained:
    """What the peers are given. ``theta``: state dicts, the one to attribute first, then those of other seeds."""

    def __init__(self, path: Path) -> None:
        import torch
        from torch import nn

        with np.load(path) as file:
            self.x, self.xt = (torch.from_numpy(file[name]) for name in ("x", "xt"))
            self.y, self.yt = (torch.from_numpy(file[name]) for name in ("y", "yt"))
            names = ("0.weight", "0.bias", "2.weight", "2.bias")
            self.theta = [
                {name: torch.from_numpy(file[f"{i}/{name}"]) for name in names} for i in range(int(file["models"]))
            ]
        hidden, inputs = self.theta[0]["0.weight"].shape
        self.model = nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, int(self.y.max()) + 1))
        self.model.load_state_dict(self.theta[0])
        self.model.eval()

    def gradient_products(self) -> Floats:
        """-<grad of a test loss, grad of a training loss>: first order, at the trained parameters."""
        import torch

        def loss(params: Any, x: Any, y: Any) -> Any:
            logits = torch.func.functional_call(self.model, params, (x[None],))
            return torch.nn.functional.cross_entropy(logits, y[None])

        each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
        params = {name: p.detach() for name, p in self.model.named_parameters()}
        train, test = (
            torch.cat([g.flatten(1) for g in each(params, x, y).values()], 1)
            for x, y in ((self.x, self.y), (self.xt, self.yt))
        )
        return -(test @ train.T).double().numpy()


def kronfluence(trained: Trained) -> Iterator[tuple[str, Any]]:
    """EK-FAC (Grosse et al. 2023), over dampings."""
    import torch
    import torch.nn.functional as F

    kron, arguments = import_module("kronfluence.analyzer"), import_module("kronfluence.arguments")
    base: Any = import_module("kronfluence.task").Task

    class Classification(base):
        def compute_train_loss(self, batch: Any, model: Any, sample: bool = False) -> Any:
            logits = model(batch[0])
            labels = torch.multinomial(logits.softmax(-1).detach(), 1).flatten() if sample else batch[1]
            return F.cross_entropy(logits, labels, reduction="sum")

        def compute_measurement(self, batch: Any, model: Any) -> Any:
            return F.cross_entropy(model(batch[0]), batch[1], reduction="sum")

    torch.manual_seed(0)
    data = torch.utils.data.TensorDataset
    train, test = data(trained.x, trained.y), data(trained.xt, trained.yt)
    model = kron.prepare_model(trained.model, Classification())
    with tempfile.TemporaryDirectory() as directory:
        analyzer = kron.Analyzer("mlp", model, Classification(), cpu=True, output_dir=directory, disable_tqdm=True)
        for fisher in (False, True):
            name = f"factors-{fisher}"
            how = arguments.FactorArguments(strategy="ekfac", use_empirical_fisher=fisher)
            analyzer.fit_all_factors(name, train, per_device_batch_size=256, factor_args=how)
            for damping in (None, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1):
                scores = f"scores-{fisher}-{damping}"
                analyzer.compute_pairwise_scores(
                    scores,
                    name,
                    test,
                    train,
                    per_device_query_batch_size=128,
                    per_device_train_batch_size=256,
                    score_args=arguments.ScoreArguments(damping_factor=damping),
                )
                found = analyzer.load_pairwise_scores(scores)["all_modules"]
                yield f"EK-FAC {'empirical' if fisher else 'true'} Fisher, damping {damping or 'own'}", found


def trak(trained: Trained) -> Iterator[tuple[str, Any]]:
    """TRAK (Park et al. 2023), over projections and regularisations, with one model and with those of other seeds."""
    import torch

    library, projectors = import_module("trak"), import_module("trak.projectors")

    size = sum(p.numel() for p in trained.model.parameters())
    probability = trained.model(trained.xt).softmax(1).gather(1, trained.yt[:, None]).detach()
    single = [(1, dimension, ridge) for dimension in (256, 1024) for ridge in (0.0, 10.0, 100.0)]
    large = [(1, 4096, ridge) for ridge in (100.0, 1000.0)]
    many = [(len(trained.theta), dimension, 100.0) for dimension in (1024, 4096)]
    for models, dimension, ridge in [*single, (1, 1024, 1000.0), *large, *many]:
        projector = projectors.BasicProjector(
            grad_dim=size,
            proj_dim=dimension,
            seed=0,
            proj_type=projectors.ProjectionType.rademacher,
            device="cpu",
            dtype=torch.float32,
        )
        with tempfile.TemporaryDirectory() as directory:
            traker = library.TRAKer(
                trained.model,
                "image_classification",
                len(trained.x),
                save_dir=directory,
                device="cpu",
                projector=projector,
                proj_dim=dimension,
                use_half_precision=False,
                lambda_reg=ridge,
                logging_level=40,
            )
            for i in range(models):
                traker.load_checkpoint(trained.theta[i], model_id=i)
                for at in range(0, len(trained.x), 200):
                    batch = (trained.x[at : at + 200], trained.y[at : at + 200])
                    traker.featurize(batch, num_samples=len(batch[0]))
            traker.finalize_features()
            for i in range(models):
                traker.start_scoring_checkpoint("test", trained.theta[i], model_id=i, num_targets=len(trained.xt))
                for at in range(0, len(trained.xt), 200):
                    batch = (trained.xt[at : at + 200], trained.yt[at : at + 200])
                    traker.score(batch, num_samples=len(batch[0]))
            scores = np.array(traker.finalize_scores("test")).T  # the mean over models
        trained.model.load_state_dict(trained.theta[0])
        yield f"TRAK-{models}, {dimension} dimensions, ridge {ridge:g}", scores * (1 - probability.numpy())


def dattri(trained: Trained) -> Iterator[tuple[str, Any]]:
    """Influence functions by conjugate gradients, and DataInf, over regularisations."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    influence, task_module = import_module("dattri.algorithm.influence_function"), import_module("dattri.task")

    def target(params: Any, data: Any) -> Any:
        x, y = data
        logits = torch.func.functional_call(trained.model, params, (x.unsqueeze(0) if x.ndim == 1 else x,))
        return torch.nn.functional.cross_entropy(logits, y.flatten())

    task = task_module.AttributionTask(loss_func=target, model=trained.model, checkpoints=trained.theta[0])
    train = DataLoader(TensorDataset(trained.x, trained.y), batch_size=len(trained.x), shuffle=False)
    test = DataLoader(TensorDataset(trained.xt, trained.yt), batch_size=TOGETHER, shuffle=False)
    for ridge in (1e-2, 3e-2, 1e-1, 2e-1, 4e-1, 1.0):
        for name, kind, options in (
            ("influence functions (CG)", influence.IFAttributorCG, {"max_iter": 20}),
            ("DataInf", influence.IFAttributorDataInf, {}),
        ):
            attributor = kind(task=task, device="cpu", regularization=ridge, **options)
            attributor.cache(train)
            yield f"{name}, ridge {ridge:g}", attributor.attribute(train, test).T


PEERS: dict[str, Peer] = {"kronfluence": kronfluence, "trak": trak, "dattri": dattri}


def measure(peer: str, trained: Path, python: str, timeout: float = 1800) -> tuple[dict[str, Floats], str]:
    """All settings of a peer by name, each (test, training), and why there are none or no more; in a new process."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "scores.npz"
        command = [python, "-c", "from benchmarks.attribution.peers import work; work()", peer, str(trained), str(out)]
        environment = os.environ | NOISE | {"PYTHONPATH": str(ROOT)}
        try:
            done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            return {}, f"did not end within {timeout:.0f} s"
        if not out.exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return {}, f"the process ended with code {done.returncode}: {last}"
        with np.load(out) as file:
            told = json.loads(str(file["told"]))
            return {name: file[f"scores/{i}"] for i, name in enumerate(told["settings"])}, told["failure"]


def work() -> None:
    """In the new process: one peer, every setting that works."""
    peer, path, out = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    trained = Trained(Path(path))
    reference = trained.gradient_products()
    settings: list[str] = []
    scores: dict[str, Floats] = {}
    failure = ""
    try:
        for name, found in PEERS[peer](trained):
            matrix = np.asarray(found.detach() if hasattr(found, "detach") else found, np.float64)
            scores[f"scores/{len(settings)}"] = matrix * np.sign((matrix * reference).sum())
            settings.append(name)
    except ImportError as error:
        failure = f"missing: {error}"
    except Exception as error:
        traceback.print_exc()
        failure = f"{type(error).__name__}: {error}"
    np.savez(out, told=json.dumps({"settings": settings, "failure": failure}), **scores)  # type: ignore[arg-type]
