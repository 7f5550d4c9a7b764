"""GGUF files with their matrices in other types, packed by llama.cpp's own quantizer or by gguf-py."""
import ctypes

import gguf
import numpy as np

import llama_cpp

KIND = gguf.GGMLQuantizationType
loaded = []


def packed(values, kind):
    """float32 [… , rows, columns] → bytes, by ggml_quantize_chunk where the wheel is installed and gguf-py where it can."""
    path = llama_cpp.library_path()
    if path is None:
        return gguf.quantize(values, kind)
    if not loaded:
        loaded.append(ctypes.CDLL(path))
        loaded[0].ggml_quantize_chunk.restype = ctypes.c_size_t
        loaded[0].ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rows = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, values.shape[-1])
    out = np.zeros((rows.shape[0], rows.shape[1] // block * size), dtype=np.uint8)
    loaded[0].ggml_quantize_chunk(int(kind), rows.ctypes.data, out.ctypes.data, 0, rows.shape[0], rows.shape[1], None)
    return out.reshape(*values.shape[:-1], -1)


def rewrite(source, out, kind_of):
    """The float file with tensors in other types: kind_of(name, values) is a type, or None for one that stays. {name: (values, stored values)}."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            writer.add_key_value(key, field.contents(), field.types[0], field.types[1] if len(field.types) > 1 else None)
    tensors = {}
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type) if tensor.tensor_type != KIND.F32 else np.array(tensor.data)
        kind = kind_of(tensor.name, values)
        if kind is None:
            writer.add_tensor(tensor.name, values)
            tensors[tensor.name] = values, values
            continue
        data = gguf.quantize(values, kind) if kind in (KIND.F16, KIND.BF16) else packed(values, kind)
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
        tensors[tensor.name] = values, gguf.dequantize(data, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors
