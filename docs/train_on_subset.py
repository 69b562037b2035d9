"""Train a CLIP model of open_clip on a curated subset, read by webdataset.

    mgd reshard POOL --subset runs/runs/RUN/subset.npy --out shards
    python docs/train_on_subset.py shards --model ViT-B-32 --steps 1000 --out model.pt

`mgd reshard` has shuffled the samples over all shards, and put copies of a sample into different ones. So webdataset
only has to shuffle the shards, anew in each epoch, and to mix what it reads in a small buffer: one that is small beside
a shard brings few copies of a sample into one batch, where each would be told from the other as if they were not alike.
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
import webdataset


def urls_of(shards: Path) -> list[str]:
    """The tars of an export, as its `meta.json` names them."""
    meta = json.loads((shards / "meta.json").read_text())
    return [str(shards / meta["output_shard_format"].format(i)) for i in range(meta["output_shard_count"])]


def main(arguments: list[str] | None = None) -> list[float]:
    """Train, and return the loss of every step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path, help="what `mgd reshard` wrote")
    parser.add_argument("--model", default="ViT-B-32", help="a name that open_clip knows, or its config as a JSON file")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0, help="of the parameters and of what is shuffled")
    parser.add_argument("--workers", type=int, default=0, help="processes that read; no more than there are shards")
    parser.add_argument("--out", type=Path, help="where to write the state dict: `mgd evaluate --checkpoint` takes it")
    options = parser.parse_args(arguments)

    name = options.model
    if name.endswith(".json"):
        open_clip.add_model_config(name)
        name = Path(name).stem
    torch.manual_seed(options.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, transform, _ = open_clip.create_model_and_transforms(name, device=device)
    tokenizer = open_clip.get_tokenizer(name)
    urls = urls_of(options.shards)
    samples = (
        webdataset.WebDataset(urls, shardshuffle=len(urls), detshuffle=True, seed=options.seed)
        .shuffle(256, seed=options.seed)
        .decode("pilrgb")
        .to_tuple("jpg;png;webp", "txt")
        .map_tuple(transform)
        .repeat()  # epoch after epoch
        .batched(options.batch, partial=False)
    )
    loader = webdataset.WebLoader(samples, batch_size=None, num_workers=options.workers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.rate, betas=(0.9, 0.98), weight_decay=0.2)

    losses = []
    for step, (pictures, captions) in enumerate(islice(loader, options.steps)):
        images, texts, scale = model(pictures.to(device), tokenizer(captions).to(device))
        logits = scale * images @ texts.T
        own = torch.arange(len(logits), device=device)
        loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        print(f"step {step}: loss {losses[-1]:.3f}")
    if options.out:
        torch.save(model.state_dict(), options.out)
    return losses


if __name__ == "__main__":
    main()
