"""Models of the zoo: towers of timm and open_clip and language models of transformers, tiny, with random weights."""

from __future__ import annotations

import importlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from mgd_core.autodiff.layout import Params
from mgd_core.autodiff.objective import Rows
from mgd_core.models.causal_lm import NOT_PREDICTED, CausalLmObjective, Decoder
from mgd_core.models.clip import CLIP_MEAN, CLIP_STD, ClipObjective, build_clip
from testing.exactness_zoo import POOL, TARGET, Case, assembled, classified, seeded
from testing.oracles import Problem

NORM, DROP = "couples the rows", "drops activations at random"
SIDE = 32
SMALL = {"img_size": SIDE, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
MIXER = {"img_size": SIDE, "patch_size": 8, "embed_dim": 16, "num_blocks": 2}

TIMM: list[tuple[str, str, dict[str, Any], str | None]] = [
    ("ViT", "vit_tiny_patch16_224", SMALL, None),
    ("ViT, mean of tokens", "vit_tiny_patch16_224", SMALL | {"global_pool": "avg", "class_token": False}, None),
    ("ViT, attention pool", "vit_tiny_patch16_224", SMALL | {"global_pool": "map", "class_token": False}, None),
    ("ViT, QK-norm", "vit_tiny_patch16_224", SMALL | {"qk_norm": True, "init_values": 0.1}, None),
    ("ViT with dropout", "vit_tiny_patch16_224", SMALL | {"drop_rate": 0.1}, DROP),
    ("ViT with drop path", "vit_tiny_patch16_224", SMALL | {"drop_path_rate": 0.1}, DROP),
    ("DeiT distilled", "deit_tiny_distilled_patch16_224", SMALL, None),
    ("DeiT III", "deit3_small_patch16_224", SMALL, None),
    ("BEiT", "beit_base_patch16_224", SMALL, None),
    ("EVA-02", "eva02_tiny_patch14_224", SMALL | {"mlp_ratio": 2}, None),
    ("CaiT", "cait_xxs24_224", SMALL | {"depth_token_only": 1}, None),
    ("XCiT", "xcit_nano_12_p16_224", SMALL, NORM),
    ("Mixer", "mlp_mixer.MlpMixer", MIXER, None),
    ("gMLP", "mlp_mixer.MlpMixer",
     MIXER | {"block_layer": "SpatialGatingBlock", "mlp_layer": "GatedMlp", "mlp_ratio": 4}, None),
    ("ResMLP", "mlp_mixer.MlpMixer", MIXER | {"block_layer": "ResBlock", "norm_layer": "Affine", "mlp_ratio": 4}, None),
    ("Swin", "swin_tiny_patch4_window7_224",
     {"img_size": SIDE, "window_size": 4, "embed_dim": 8, "depths": (2, 1), "num_heads": (1, 2),
      "drop_path_rate": 0.0}, None),
    ("Swin V2", "swinv2_tiny_window8_256",
     {"img_size": SIDE, "window_size": 4, "embed_dim": 8, "depths": (2, 1), "num_heads": (1, 2),
      "drop_path_rate": 0.0}, None),
    ("ConvNeXt", "convnext_atto", {"dims": (8, 12, 16, 16), "depths": (1, 1, 1, 1)}, None),
    ("ConvNeXt V2", "convnextv2_atto", {"dims": (8, 12, 16, 16), "depths": (1, 1, 1, 1)}, None),
    ("MambaOut", "test_mambaout", {"dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1)}, None),
    ("PoolFormer", "metaformer.MetaFormer",
     {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16), "token_mixers": "Pooling", "mlp_act": nn.GELU}, None),
    ("FocalNet", "focalnet.FocalNet", {"embed_dim": 8, "depths": (1, 1), "focal_levels": (2, 2),
                                       "focal_windows": (3, 3), "drop_path_rate": 0.0}, None),
    ("Twins-SVT", "twins_svt_small", {"img_size": SIDE, "embed_dims": (8, 8, 16, 16), "num_heads": (1, 1, 2, 2),
                                      "depths": (1, 1, 1, 1), "wss": (4, 4, 4, 4)}, None),
    ("CrossViT", "crossvit_tiny_240", {"img_size": 48, "embed_dim": (8, 16), "depth": ((1, 1, 0),),
                                       "num_heads": (2, 2), "img_scale": (1.0, 1.0), "patch_size": (12, 16),
                                       "mlp_ratio": (2, 2, 1)}, None),
    ("NFNet", "test_nfnet", {}, None),
    ("EfficientNet, group norm", "test_efficientnet_gn", {}, None),
    ("EfficientNet, layer norm", "test_efficientnet_ln", {}, None),
    ("EfficientNet", "test_efficientnet", {}, NORM),
    ("ResNet", "test_resnet", {}, NORM),
    ("ByobNet", "test_byobnet", {}, NORM),
    ("MaxViT", "test_maxvit", {}, NORM),
    ("ViT, relative positions", "test_vit_relpos",
     {"img_size": SIDE, "embed_dim": 16, "depth": 2, "num_heads": 2}, DROP),
    ("Sequencer", "sequencer2d_s", {"img_size": SIDE, "embed_dims": (8, 8, 8, 8), "layers": (1, 1, 1, 1),
                                    "hidden_sizes": (2, 2, 2, 2)}, None),
]  # fmt: skip

VIT = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 2, "head_width": 8, "mlp_ratio": 2.0}
TEXT = {"context_length": 5, "vocab_size": 20, "width": 16, "heads": 2, "layers": 2}
TOWER = {"image_size": SIDE, "timm_model_pretrained": False, "timm_proj": "linear", "timm_pool": "avg"}
POOLED = {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2}
CLIPS: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], str | None]] = [
    ("ViT-B", {}, {}, {}, None),
    ("ViT-B, quick GELU", {}, {}, {"quick_gelu": True}, None),
    ("ViT-bigG", {"mlp_ratio": 4.9231, "head_width": 4}, {}, {}, None),
    ("CLIPA", {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
     {"pool_type": "last", "no_causal_mask": True}, {}, None),
    ("sine positions", {"pos_embed_type": "sin_cos_2d"}, {}, {}, None),
    ("layer scale", {"ls_init_value": 0.1}, {"ls_init_value": 0.1}, {}, None),
    ("attentional pool", POOLED, {}, {}, None),
    ("CoCa's text (embed_cls)", POOLED, {"embed_cls": True, "pad_id": 0}, {"custom": True}, None),
    ("patch dropout", {"patch_dropout": 0.3}, {}, {}, DROP),
    ("text by its first token", {}, {"pool_type": "first", "no_causal_mask": True}, {}, None),
    ("custom text", {}, {}, {"custom": True}, None),
    ("SigLIP", TOWER | {"timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
     {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}},
     {"custom": True, "embed": 64}, None),
    ("ConvNeXt", TOWER | {"timm_model_name": "test_convnext"}, {}, {}, None),
    ("ConvNeXt with drop path", TOWER | {"timm_model_name": "test_convnext", "timm_drop_path": 0.1}, {}, {}, DROP),
    ("relative positions", TOWER | {"timm_model_name": "test_vit_relpos"}, {}, {}, DROP),
    ("NFNet", TOWER | {"timm_model_name": "test_nfnet"}, {}, {}, None),
    ("EfficientNet", TOWER | {"timm_model_name": "test_efficientnet"}, {}, {}, NORM),
    ("RN50", {"layers": [1, 1, 1, 1], "width": 8, "patch_size": None, "image_size": SIDE}, {}, {}, NORM),
]  # fmt: skip

SIZES: dict[str, Any] = {"vocab_size": 13, "hidden_size": 8, "intermediate_size": 12}
SIZES |= {"num_hidden_layers": 2, "num_attention_heads": 2}
GPT2: dict[str, Any] = {"vocab_size": 13, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 16}
STILL: dict[str, Any] = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
LANGUAGES: list[tuple[str, str, dict[str, Any], str | None]] = [
    *((f"Llama{', tied' * t}{', padded' * p}", "Llama",
       SIZES | {"tie_word_embeddings": bool(t), "pad_token_id": 0 if p else None}, None)
      for t in (0, 1) for p in (0, 1)),
    ("Llama, grouped queries", "Llama", SIZES | {"num_key_value_heads": 1}, None),
    *((f"GPT-2{', tied' * t}{', padded' * p}", "GPT2",
       GPT2 | STILL | {"tie_word_embeddings": bool(t), "pad_token_id": 0 if p else None}, None)
      for t in (0, 1) for p in (0, 1)),
    ("GPT-2 with dropout", "GPT2", GPT2, DROP),
    *((f"NeoX{', tied' * t}{', padded' * p}", "GPTNeoX",
       SIZES | {"tie_word_embeddings": bool(t), "pad_token_id": 0 if p else None}, None)
      for t in (0, 1) for p in (0, 1)),
    ("Llama with dropout", "Llama", SIZES | {"attention_dropout": 0.1}, "at random"),
    ("Qwen2, tied", "Qwen2", SIZES | {"tie_word_embeddings": True, "num_key_value_heads": 1}, None),
    ("Mistral, padded", "Mistral", SIZES | {"pad_token_id": 0, "num_key_value_heads": 1}, None),
    ("Gemma, tied and padded", "Gemma", SIZES | {"head_dim": 4, "num_key_value_heads": 1, "pad_token_id": 0}, None),
]  # fmt: skip


def timm_case(name: str, model: str, options: dict[str, Any], reason: str | None) -> Case:
    """A classifier of timm."""

    def build() -> nn.Module:
        import timm

        if "." not in model:
            return timm.create_model(model, pretrained=False, num_classes=3, **options)
        file, kind = model.split(".")
        home = importlib.import_module(f"timm.models.{file}")
        named = {key: getattr(home, x) if isinstance(x, str) else x for key, x in options.items()}
        made: nn.Module = getattr(home, kind)(num_classes=3, **named)
        return made

    side = options.get("img_size", SIDE)
    return Case("timm", name, lambda: classified(name, lambda: Logits(build()), (3, side, side)), reason)


class Logits(nn.Module):
    """Logits of a classifier that gives one or two of them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """(n, classes)."""
        out = self.model(x)
        return out if isinstance(out, Tensor) else out[0] + out[1]


def clip_case(
    name: str, vision: dict[str, Any], text: dict[str, Any], options: dict[str, Any], reason: str | None
) -> Case:
    """A CLIP of open_clip."""
    vision = vision if "timm_model_name" in vision else VIT | vision
    return Case("open_clip", name, lambda: _clip(name, vision, TEXT | text, dict(options)), reason)


def _clip(name: str, vision: dict[str, Any], text: dict[str, Any], options: dict[str, Any]) -> Problem:
    width, custom = options.pop("embed", 8), options.pop("custom", False)

    def build() -> nn.Module:
        if not custom:
            return build_clip(width, vision, text, seed=5, **options)
        from open_clip.model import CustomTextCLIP

        return CustomTextCLIP(width, dict(vision), dict(text), **options)

    model = seeded(build)
    draw = torch.Generator().manual_seed(3)
    side = vision["image_size"]
    images = torch.rand(POOL + TARGET, 3, side, side, generator=draw, dtype=torch.float64) * 255
    tokens = torch.randint(1, 19, (POOL + TARGET, 5), generator=draw)
    tokens[:, -1] = 19
    tokens[::3, 3:] = torch.tensor([19, 0])

    def losses(params: Params, rows: Rows) -> Tensor:
        found = functional_call(model, dict(params), ((rows[0] / 255 - CLIP_MEAN) / CLIP_STD, rows[1]))
        image, written, scale = found[:3]
        logits, own = scale.clamp(max=100) * image @ written.T, torch.arange(len(image))
        return 0.5 * sum(F.cross_entropy(x, own, reduction="none") for x in (logits, logits.T))  # type: ignore[return-value]

    return assembled(name, ClipObjective(model), model, (images, tokens), losses)


def language_case(name: str, family: str, sizes: dict[str, Any], reason: str | None) -> Case:
    """A causal language model of transformers."""
    return Case("language", name, lambda: _language(name, family, sizes), reason)


def _language(name: str, family: str, sizes: dict[str, Any]) -> Problem:
    import transformers

    def build() -> nn.Module:
        ends = {"bos_token_id": 1, "eos_token_id": 2}
        config = getattr(transformers, f"{family}Config")(**sizes, **ends, initializer_range=0.3)
        config._attn_implementation = "sdpa"
        whole = transformers.AutoModelForCausalLM.from_config(config).train()
        _in_float64(whole)
        return Decoder(whole.base_model, whole.get_output_embeddings())

    model = seeded(build)
    assert isinstance(model, Decoder)
    draw = torch.Generator().manual_seed(8)
    tokens = torch.randint(3, 13, (POOL + TARGET, 7), generator=draw)
    tokens[::2, 5:] = 0
    tokens[1::4, 2] = 0
    labels = tokens.roll(-1, 1)
    labels[:, -1] = NOT_PREDICTED
    labels[::2, 4:] = NOT_PREDICTED

    def losses(params: Params, rows: Rows) -> Tensor:
        everywhere = torch.arange(7).expand_as(rows[1])
        logits = functional_call(model, dict(params), (rows[0], everywhere))
        each = F.cross_entropy(logits.transpose(1, 2), rows[1], ignore_index=NOT_PREDICTED, reduction="none")
        return each.sum(1) / (rows[1] != NOT_PREDICTED).sum(1)

    return assembled(name, CausalLmObjective(model), model, (tokens, labels), losses)


def _in_float64(model: nn.Module) -> None:
    """RMS norms of transformers compute in float32 whatever they get, whose rounding would hide all errors below 1e-7:
    torch's in their place, which are the same function (Gemma's gain is one more than its weight)."""
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if type(module).__name__.endswith("RMSNorm") and not isinstance(module, nn.RMSNorm):
                eps = getattr(module, "variance_epsilon", getattr(module, "eps", 1e-6))
                setattr(parent, name, nn.RMSNorm(module.get_parameter("weight").shape, eps=float(eps)))


def cases() -> list[Case]:
    """All models."""
    return [
        *(clip_case(*one) for one in CLIPS),
        *(timm_case(*one) for one in TIMM),
        *(language_case(*one) for one in LANGUAGES),
    ]


def few() -> list[Case]:
    """A subset for the test suite."""
    wanted = {"CoCa's text (embed_cls)", "ResNet", "DeiT III", "Llama, tied, padded", "GPT-2, tied, padded"}
    return [case for case in cases() if case.name in wanted]
