"""Side files that go along to the output, and those that stay."""

import pytest

from fda_core.checkpoints.sidecars import MAX_SIDECAR_BYTES, is_sidecar, sidecars
from fda_core.storage.base import ObjectInfo

_CARRIED = """
tokenizer.json tokenizer_config.json tokenizer.model spiece.model sentencepiece.bpe.model
vocab.txt vocab.json merges.txt added_tokens.json special_tokens_map.json
generation_config.json preprocessor_config.json processor_config.json video_preprocessor.json
image_processor.json chat_template.json chat_template.jinja modules.json source.spm
sentence_bert_config.json config_sentence_transformers.json qwen.tiktoken
LICENSE LICENSE.txt LICENCE.md NOTICE USE_POLICY.md COPYING
additional_chat_templates/tool_use.jinja 1_Pooling/config.json
"""

_LEFT = """
config.json model.safetensors model-00001-of-00002.safetensors model.safetensors.index.json
pytorch_model.bin pytorch_model.bin.index.json pytorch_model.bin.index.json model.pt model.pth
last.ckpt model.pkl tf_model.h5 flax_model.msgpack model.gguf model.onnx rust_model.ot
README.md readme.txt .gitattributes .hidden.json training_args.bin training_args.json
optimizer.pt optimizer.json scheduler.pt rng_state.pth rng_state_0.pth scaler.pt
trainer_state.json all_results.json eval_results.txt train_results.json events.out.tfevents.1
adapter_config.json adapter_model.safetensors merge_report.json merge_manifest.json merge_plan.txt
merge_log.txt heads/mnist.safetensors heads/config.json modeling_custom.py run.sh picture.png
onnx/config.json checkpoint-500/tokenizer.json .cache/x.json 1_Pooling/more/config.json
additional_chat_templates/.x.jinja mergekit_config.yml requirements.txt 2_Dense/model.safetensors
"""


@pytest.mark.parametrize("path", _CARRIED.split())
def test_carried(path: str) -> None:
    assert is_sidecar(path, size_bytes=1000)


@pytest.mark.parametrize("path", _LEFT.split())
def test_left(path: str) -> None:
    assert not is_sidecar(path, size_bytes=1000)


def test_huge_files_stay() -> None:
    assert is_sidecar("tokenizer.json", size_bytes=MAX_SIDECAR_BYTES)
    assert not is_sidecar("tokenizer.json", size_bytes=MAX_SIDECAR_BYTES + 1)


def test_names_that_cannot_be_printed_stay() -> None:
    assert not is_sidecar("a\nb.json", size_bytes=1)
    assert not is_sidecar("a\udcff.json", size_bytes=1)


def test_sidecars_are_sorted() -> None:
    listing = {
        name: ObjectInfo(uri=f"/m/{name}", size_bytes=1, etag="x")
        for name in ("vocab.txt", "config.json", "merges.txt", "a/b.txt")
    }
    assert sidecars(listing) == ("merges.txt", "vocab.txt")
