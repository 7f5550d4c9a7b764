#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/format/tensor_info.h"

namespace qb {

// The tensors of a safetensors header in its own order, with offsets from the start of the data. `data_bytes` is what the
// file holds after the header. Throws InputError naming `file` and the tensor for anything but a correct description:
// broken JSON, keys given twice, wrong types, sizes that overflow, data_offsets that do not cover the data exactly
// (a hole, an overlap, a short or long file). Source: the format's documentation and its reference reader's checks.
// metadata: gets the texts of "__metadata__".
std::vector<TensorInfo> parse_safetensors_header(std::string_view header, uint64_t data_bytes, const std::string& file,
                                                 std::map<std::string, std::string>* metadata = nullptr);

}  // namespace qb
