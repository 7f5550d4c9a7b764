#include "core/model/canonical_source.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <unordered_map>
#include <unordered_set>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/format/gguf.h"
#include "core/format/mxfp4.h"
#include "core/model/known_keys.h"

namespace qb {
namespace {

// Types that a float model may have; F8 has a scale beside it.
bool holds_weights(DType dtype) {
  switch (dtype) {
    case DType::f64: case DType::f32: case DType::f16: case DType::bf16: case DType::f8_e4m3: case DType::f8_e5m2: return true;
    default: return is_block_quantized(dtype);
  }
}

// Expands scale [ceil(rows / r), ceil(columns / c)] (or one value, or one a row) and multiplies.
at::Tensor apply_scale(const at::Tensor& weight, at::Tensor scale, const std::vector<int64_t>& block) {
  at::Tensor result = weight.to(at::kFloat);
  scale = scale.to(at::kFloat);
  if (block.size() == 2) {
    if (scale.dim() == 4) scale = scale.squeeze(3).squeeze(1);
    scale = scale.repeat_interleave(block[0], 0).narrow(0, 0, weight.size(0));
    scale = scale.repeat_interleave(block[1], 1).narrow(1, 0, weight.size(1));
  } else if (scale.numel() > 1) {
    scale = scale.reshape({-1, 1});
  } else {
    scale = scale.reshape({1, 1});
  }
  return result.mul_(scale);
}

std::string module_of(const std::string& tensor) { return tensor.substr(0, tensor.rfind('.') + 1); }

// "model.layers.3." of "model.layers.3.mlp.up_proj.weight": up to the first number. Empty outside blocks.
std::string block_of(const std::string& tensor) {
  for (size_t begin = 0, dot = tensor.find('.'); dot != std::string::npos; begin = dot + 1, dot = tensor.find('.', begin))
    if (dot > begin && tensor.find_first_not_of("0123456789", begin) == dot) return tensor.substr(0, dot + 1);
  return "";
}

}  // namespace

CanonicalSource::CanonicalSource(TensorSourcePtr base, std::vector<CanonicalTensor> tensors, const std::vector<std::string>& unread)
    : base_(std::move(base)), tensors_(std::move(tensors)) {
  infos_.reserve(tensors_.size());
  index_.reserve(tensors_.size());
  for (const CanonicalTensor& tensor : tensors_) {
    index_.emplace(tensor.info.name, infos_.size());
    infos_.push_back(tensor.info);
  }
  require_all_read(unread);
}

// What lies beside a tensor that is read, or in the folder of a block that is read ("model.layers.3."), belongs to the
// forward pass. Blocks behind the last one (heads that predict further tokens) and other towers do not.
void CanonicalSource::require_all_read(const std::vector<std::string>& unread) const {
  std::unordered_set<std::string> read(unread.begin(), unread.end()), folders;
  for (const CanonicalTensor& tensor : tensors_) {
    for (const std::string& stored : tensor.stored) {
      read.insert(stored);
      folders.insert(module_of(stored));
      if (const std::string block = block_of(stored); !block.empty()) folders.insert(block);
    }
    if (!tensor.scale.empty()) read.insert(tensor.scale);
  }
  for (const TensorInfo& stored : base_->tensors()) {
    if (read.contains(stored.name) || harmless_tensor(stored.name)) continue;
    if (!folders.contains(module_of(stored.name)) && !folders.contains(block_of(stored.name))) continue;
    throw InputError(fmt::format("{}: tensor \"{}\" {} is read by nothing, expected no such tensor: the forward pass that the model's configuration "
                                 "asks for has no place for it", base_->files()[stored.file].string(), stored.name, shape_text(stored.shape)));
  }
}

const TensorInfo* CanonicalSource::find(const std::string& name) const {
  auto it = index_.find(name);
  return it == index_.end() ? nullptr : &infos_[it->second];
}

const CanonicalTensor* CanonicalSource::entry(const std::string& name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

std::string CanonicalSource::stored_name(const std::string& name) const {
  if (const CanonicalTensor* found = entry(name); found && found->plain()) return found->stored.front();
  // Tensors of one block, or those outside of blocks, share what stands before the names they have in common.
  const std::string block = block_of(name);
  for (const CanonicalTensor& other : tensors_) {
    if (!other.plain() || block_of(other.info.name) != block) continue;
    const std::string &canonical = other.info.name, &spelled = other.stored.front();
    size_t common = 0;
    while (common < canonical.size() - block.size() && common < spelled.size() && canonical[canonical.size() - 1 - common] == spelled[spelled.size() - 1 - common]) ++common;
    if (block.empty()) {
      // "model.embed_tokens.weight" as "language_model.model.embed_tokens.weight": the prefix is before all names; a head stands outside of "model.".
      if (common == canonical.size()) return spelled.substr(0, spelled.size() - common) + name;
    } else if (common == canonical.size() - block.size()) {
      return spelled.substr(0, spelled.size() - common) + name.substr(block.size());
    }
  }
  return name;
}

// One expert of a stored [experts, rows, columns] without dequantizing the others.
at::Tensor CanonicalSource::read_slice(const CanonicalTensor& entry) const {
  const TensorInfo& stored = *base_->find(entry.stored.front());
  if (!is_block_quantized(stored.dtype)) return base_->read(stored.name).select(0, entry.slice);
  const uint64_t bytes = stored.bytes / static_cast<uint64_t>(stored.shape[0]);
  const auto file = MappedFile::open(base_->files()[stored.file]);
  at::Tensor value = at::empty({stored.shape[1], stored.shape[2]}, at::kFloat);
  dequantize_ggml(stored.dtype, file->bytes(stored.offset + static_cast<uint64_t>(entry.slice) * bytes, bytes, stored.name),
                  value.mutable_data_ptr<float>(), value.numel());
  return value;
}

// gpt-oss' experts as they are published: value 2i in the low nibble of byte i, 2i + 1 in the high one.
at::Tensor CanonicalSource::read_mxfp4(const CanonicalTensor& entry) const {
  auto rows = [&](const std::string& stored) {
    const int64_t end = entry.first_row + entry.info.shape[0] * entry.row_step;
    return base_->read(stored).select(0, entry.slice).slice(0, entry.first_row, end, entry.row_step).contiguous();
  };
  const at::Tensor codes = rows(entry.stored.front()), exponents = rows(entry.scale);
  at::Tensor value = at::empty(entry.info.shape, at::kFloat);
  const uint8_t* code = codes.const_data_ptr<uint8_t>();
  const uint8_t* exponent = exponents.const_data_ptr<uint8_t>();
  float* out = value.mutable_data_ptr<float>();
  for (int64_t block = 0; block < exponents.numel(); ++block) {
    const float scale = half_power_of_two(exponent[block]);
    for (int64_t i = 0; i < 16; ++i, ++code) {
      *out++ = kTwiceFp4[*code & 15] * scale;
      *out++ = kTwiceFp4[*code >> 4] * scale;
    }
  }
  return value;
}

at::Tensor CanonicalSource::read(const std::string& name) const {
  auto it = index_.find(name);
  if (it == index_.end()) throw InputError(fmt::format("{}: tensor \"{}\" is missing", base_->files().front().string(), name));
  const CanonicalTensor& entry = tensors_[it->second];
  if (entry.mxfp4) return read_mxfp4(entry);
  at::Tensor value;
  if (entry.joined) {
    value = at::cat({base_->read(entry.stored[0]).to(at::kFloat).transpose(1, 2), base_->read(entry.stored[1]).to(at::kFloat)}, 1);
  } else if (entry.slice >= 0) {
    value = read_slice(entry);
    if (entry.transposed && value.dim() == 2) value = value.t();
    value = value.slice(0, entry.first_row, entry.first_row + entry.info.shape[0] * entry.row_step, entry.row_step);
  } else if (entry.stored.size() == 1) {
    value = base_->read(entry.stored.front());
    if (entry.transposed) value = value.t();
    if (entry.part) value = value.narrow(0, entry.first_row, entry.info.shape[0]);
  } else {
    std::vector<at::Tensor> parts;
    for (const std::string& part : entry.stored) parts.push_back(base_->read(part));
    value = at::cat(parts, 0);
  }
  if (!entry.scale.empty()) value = apply_scale(value, base_->read(entry.scale), entry.scale_block);
  if (!entry.order.empty()) value = value.index_select(0, at::tensor(entry.order, at::kLong));
  if (!entry.columns.empty()) value = value.index_select(1, at::tensor(entry.columns, at::kLong));
  if (entry.minus_exponential) value = value.to(at::kFloat).neg().log();
  if (entry.add != 0) value = value.to(at::kFloat) + entry.add;
  return value.reshape(entry.info.shape).contiguous();
}

void check_stored(const TensorSource& base, const std::string& origin, const TensorSpec& spec, CanonicalTensor& entry,
                  const std::vector<std::vector<int64_t>>& stored_shapes) {
  entry.info.name = spec.name;
  entry.info.shape = spec.shape;
  for (size_t i = 0; i < entry.stored.size(); ++i) {
    const TensorInfo* stored = base.find(entry.stored[i]);
    const std::string alias = entry.stored[i] == spec.name ? "" : fmt::format(" (for {})", spec.name);
    if (!stored) throw InputError(fmt::format("{}: tensor \"{}\"{} is missing, expected shape {}", origin, entry.stored[i], alias, shape_text(stored_shapes[i])));
    const std::string file = base.files()[stored->file].string();
    if (stored->shape != stored_shapes[i])
      throw InputError(fmt::format("{}: tensor \"{}\"{} has shape {}, expected {}", file, entry.stored[i], alias, shape_text(stored->shape), shape_text(stored_shapes[i])));
    if (!holds_weights(stored->dtype))
      throw InputError(fmt::format("{}: tensor \"{}\"{} is stored as {}, expected a floating-point or ggml type", file, entry.stored[i], alias, name_of(stored->dtype)));
    if (i == 0) {
      entry.info.dtype = stored->dtype;
      entry.info.file = stored->file;
      entry.info.offset = stored->offset;
    }
    if (entry.part) {
      if (stored->shape[0] > 0) entry.info.bytes += stored->bytes / static_cast<uint64_t>(stored->shape[0]) * static_cast<uint64_t>(spec.shape[0]);
      continue;
    }
    // A slice is a whole fraction of its tensor: an expert, or half of one.
    int64_t used = stored->elements();
    if (entry.slice >= 0) {
      used = 1;
      for (int64_t size : spec.shape) used *= size;
    }
    if (used > 0) entry.info.bytes += stored->bytes / static_cast<uint64_t>(stored->elements() / used);
  }
}

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

}  // namespace qb
