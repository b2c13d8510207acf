"""Models as others ship them: a GGUF file, a package that has one."""

from __future__ import annotations

import hashlib
import json
import zipfile

import numpy as np


def permuted(weight, heads):
    """Rows of a head as llama.cpp keeps them: pairs of rotated coordinates beside each other."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def written(path, model, tokenizer, *, arch="llama", template=True, tokens=True, kind="F32", eos=True, pre=None,
            without="nothing", more=None, facts=None, words=None, pieces=None):  # fmt: skip
    """The model as a GGUF file, written by the library of llama.cpp: without a tensor, with `more` of them, or with
    other facts in its header (None: not there); with other `words`, by their number, of llama.cpp's types; or with
    SentencePiece `pieces` and their scores in place of all words."""
    import gguf

    c, types = model.config, gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name("tiny")
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    if arch == "qwen3":  # llama.cpp writes the width of a head; that all of it is turned goes without saying
        writer.add_key_length(c.head_dim)
    else:
        writer.add_rope_dimension_count(c.hidden_size // c.num_attention_heads)
    writer.add_rope_freq_base(c.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    vocabulary = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    if tokens:
        special = set(tokenizer.all_special_ids)
        listed = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        types_of = [3 if i in special else 1 for i in range(len(tokenizer))]
        gone = {listed[i] for i in words or ()}
        for i, (word, of) in (words or {}).items():
            listed[i], types_of[i] = word, of
        if pieces:
            listed = [word if i in special else [*pieces, *(f"[{k}]" for k in range(i + 1))][i]
                      for i, word in enumerate(listed)]  # fmt: skip
            writer.add_token_scores([pieces.get(word, -1e4) for word in listed])
        writer.add_tokenizer_model("llama" if pieces else "gpt2")
        writer.add_token_list(listed)
        writer.add_token_types(types_of)
        merges = [m.split(" ") if isinstance(m, str) else m for m in vocabulary["merges"]]
        if not pieces:
            writer.add_token_merges([" ".join(m) for m in merges if gone.isdisjoint((*m, "".join(m)))])
        if eos:
            writer.add_eos_token_id(tokenizer.eos_token_id)
        if pre:
            writer.add_tokenizer_pre(pre)
        writer.add_bos_token_id(tokenizer.bos_token_id)
        writer.add_pad_token_id(tokenizer.pad_token_id)
        writer.add_add_bos_token(False)
    if template:
        writer.add_chat_template(tokenizer.chat_template)
    for name, value in (facts or {}).items():
        writer.kv_data[0].pop(name, None)
        if value is None:
            continue
        {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32, bool: writer.add_bool}[type(value)](
            name, value
        )
    of_arch = gguf.MODEL_ARCH.QWEN3 if arch == "qwen3" else gguf.MODEL_ARCH.LLAMA
    names = gguf.get_tensor_name_map(of_arch, c.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and c.tie_word_embeddings or without in name:
            continue
        values = tensor.float().numpy()
        if arch != "qwen3" and ("q_proj" in name or "k_proj" in name):
            values = permuted(values, c.num_attention_heads if "q_proj" in name else c.num_key_value_heads)
        to = names.get_name(name, try_suffixes=(".weight",))
        blocks = values.ndim == 2 and values.shape[1] % 32 == 0 and "layers" in name
        wanted = types[kind] if blocks else types.F32
        if wanted != types.F32:
            values = gguf.quants.quantize(values, wanted)
        writer.add_tensor(to, np.ascontiguousarray(values), raw_dtype=wanted)
    for name, values in (more or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def wheel(folder, members):
    """A wheel named tiny-model 1.0 with these files; its sha256."""
    folder.mkdir(exist_ok=True)
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    info = {
        "tiny_model-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        "tiny_model-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny_model-1.0.dist-info/RECORD": b"",
        "tiny_model/__init__.py": b"raise SystemExit('code of the package ran')\n",
    }
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in (members | info).items():
            packed.writestr(name, content)
    return hashlib.sha256(path.read_bytes()).hexdigest()
