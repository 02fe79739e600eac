"""Writes a training checkpoint as GGUF: matrices as Q8_0, norms as F32.

    python export.py --run FOLDER --out FILE.gguf

FOLDER is what train.py wrote. check.py then compares the file with the checkpoint, in llama.cpp.
"""

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
import torch
from corpus import BEGIN, END, HERE, PAD, SPECIALS

# The Jinja template of the chat. A role the model was not trained on counts as the user. The marks and line ends are
# those of corpus.render; llama.cpp's own list of templates has the same layout, for programs without Jinja.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- set role = message['role'] if message['role'] in ['system', 'assistant'] else 'user' -%}"
    "{{- '<|' + role + '|>\\n' + (message['content'] | trim) + '<|end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}"
)
FILE_TYPE_Q8_0 = 7  # llama.cpp's number for "mostly Q8_0"


def add_vocabulary(writer: gguf.GGUFWriter, tokenizer: dict) -> None:
    """Tokens, merges and special ids. Byte-level BPE needs no byte tokens: its 256 base letters stand for all bytes."""
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    kinds = (gguf.TokenType.CONTROL if t in SPECIALS else gguf.TokenType.NORMAL for t in tokens)
    writer.add_token_types(list(kinds))
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(SPECIALS.index(BEGIN))
    writer.add_eos_token_id(SPECIALS.index(END))
    writer.add_eot_token_id(SPECIALS.index(END))
    writer.add_unk_token_id(SPECIALS.index(PAD))  # never produced: every byte has a token
    writer.add_pad_token_id(SPECIALS.index(PAD))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def export(run: Path, target: Path) -> None:
    """Writes `target`, through a temporary name so that nobody reads half a file."""
    checkpoint = torch.load(run / "checkpoint.pt", weights_only=True)
    shape, weights = checkpoint["shape"], checkpoint["model"]
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "llama")
    writer.add_type("model")
    writer.add_name("swarmd built-in")
    writer.add_description("Small chat model that answers questions about swarmd")
    writer.add_license("apache-2.0")
    writer.add_languages(["en"])
    writer.add_size_label(f"{sum(w.numel() for w in weights.values()) / 1e6:.1f}M")
    writer.add_file_type(FILE_TYPE_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(shape["context"])
    writer.add_embedding_length(shape["width"])
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(shape["ff"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_layer_norm_rms_eps(shape["norm_eps"])
    writer.add_rope_dimension_count(shape["width"] // shape["heads"])
    writer.add_rope_freq_base(shape["rope_base"])
    writer.add_vocab_size(shape["vocab"])
    add_vocabulary(writer, json.loads((HERE / "tokenizer.json").read_text(encoding="utf-8")))
    for name, weight in weights.items():
        array = weight.float().numpy()
        if array.ndim == 1:
            writer.add_tensor(name, array.astype(np.float32))
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(target)
    print(f"{target.name}: {target.stat().st_size:,} bytes, step {checkpoint['step']}")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    export(args.run, args.out)


if __name__ == "__main__":
    main()
