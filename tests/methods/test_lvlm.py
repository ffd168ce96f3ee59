"""Captions by a vision-language model: what it is asked, a LLaVA with random weights, no transformers."""

import importlib
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ovs_lite import cli
from ovs_lite.methods import lvlm
from ovs_lite.methods.lvlm import BARE, INSTRUCTION, LvlmRefiner

WORDS = ["<pad>", "<unk>", "<image>", "</s>", "the", "image", "a", "dog", "cat", "red", "object", "wrong", "captions"]


def images(count):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)) for _ in range(count)]


class Given(dict):
    def to(self, device):
        return self


class Processor:
    """Keeps what is asked; an answer is its row's number."""

    def __init__(self):
        self.tokenizer, self.asked = SimpleNamespace(padding_side="right"), []

    def apply_chat_template(self, conversations, **options):
        self.asked.append((conversations, options))
        return Given(
            input_ids=torch.zeros(len(conversations), 7), pixel_values=torch.zeros(len(conversations), 3, 4, 4)
        )

    def batch_decode(self, tokens, skip_special_tokens):
        assert tokens.shape[1] == 2 and skip_special_tokens, "the question is no part of the answer"
        return [["a dog \n", " ", "a cat"][int(row[0])] for row in tokens]


class Network(torch.nn.Module):
    dtype = torch.float32

    def generate(self, input_ids, pixel_values, max_new_tokens, do_sample):
        assert max_new_tokens == 64 and not do_sample
        return torch.cat([input_ids, torch.arange(len(input_ids))[:, None].expand(-1, 2).float()], 1)


@pytest.fixture
def fake(monkeypatch):
    processor = Processor()
    kinds = {"AutoProcessor": processor, "AutoModelForImageTextToText": Network()}
    module = {name: SimpleNamespace(from_pretrained=lambda model, k=kind, **o: k) for name, kind in kinds.items()}
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(**module))
    return processor


def test_each_image_is_asked_about_its_captions_and_answers_once(fake):
    refiner = LvlmRefiner("toy")
    assert refiner.refine(images(3), [["a dog", "two\ncats"], ["x"], []]) == [["a dog"], [], ["a cat"]]
    [(asked, options)] = fake.asked
    texts = [conversation[0]["content"][1]["text"] for conversation in asked]
    assert texts[0] == INSTRUCTION.replace("{captions}", '"a dog" "two cats".') and texts[2] == BARE
    shown = [conversation[0]["content"][0]["image"].size for conversation in asked]
    assert shown == [(30, 20)] * 3 and options["padding"] and options["add_generation_prompt"]
    assert fake.tokenizer.padding_side == "left" and refiner.name.startswith("toy, 64 tokens")
    assert refiner.refine([], []) == []


def test_without_transformers_the_user_is_told_what_to_install(monkeypatch, capsys, tmp_path):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(lvlm, "importlib", SimpleNamespace(import_module=absent))
    with pytest.raises(ValueError, match=r"needs transformers: pip install 'ovs-lite\[lvlm\]'"):
        LvlmRefiner()


def tiny_llava(folder):
    """A LLaVA with random weights and a tokenizer of a few words, as a folder that transformers reads."""
    transformers = pytest.importorskip("transformers", reason="needs the extra: pip install 'ovs-lite[lvlm]'")
    tokenizers = importlib.import_module("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, **special)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    template = (
        "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image> "
        "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
    )
    side = {"shortest_edge": 16}
    pixels = transformers.CLIPImageProcessor(size=side, crop_size={"height": 16, "width": 16})
    transformers.LlavaProcessor(
        pixels, tokenizer, patch_size=8, vision_feature_select_strategy="default", chat_template=template,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = transformers.CLIPVisionConfig(**sizes, image_size=16, patch_size=8)
    text = transformers.LlamaConfig(**sizes, vocab_size=len(WORDS), num_key_value_heads=2)
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=2, vision_feature_layer=-1
    )
    torch.manual_seed(0)
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    return str(folder)


def test_a_batch_of_a_real_llava_gives_what_each_image_gives_alone(tmp_path):
    refiner = LvlmRefiner(tiny_llava(tmp_path / "llava"), tokens=5)
    captions = [["a dog"], ["a red cat the image a dog"], []]
    alone = [refiner.refine([one], [some])[0] for one, some in zip(images(3), captions, strict=True)]
    assert refiner.refine(images(3), captions) == alone
    assert all(len(some) == 1 and set(some[0].split()) <= set(WORDS) for some in alone)


def test_a_model_that_is_not_there_is_reported(tmp_path, monkeypatch, capsys):
    pytest.importorskip("transformers", reason="needs the extra: pip install 'ovs-lite[lvlm]'")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = ["refine", str(tmp_path / "none"), "--out", str(tmp_path / "out"), "--lvlm", str(tmp_path / "no-model")]
    assert cli.main(words) == 2 and "no data set" in capsys.readouterr().err
    with pytest.raises(OSError):
        LvlmRefiner(str(tmp_path / "no-model"))
