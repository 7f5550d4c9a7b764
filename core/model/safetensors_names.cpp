#include <fmt/format.h>

#include "core/base/error.h"
#include "core/model/canonical_source.h"

namespace qb {
namespace {

bool ends_with(const std::string& text, std::string_view end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// Ways in which checkpoints of one family spell the same names: saved from the base model without its prefix, or inside a
// multimodal model.
std::vector<std::string> spellings(const std::string& name) {
  std::vector<std::string> all = {name};
  for (const char* prefix : {"model.", "transformer.", "gpt_neox."})
    if (name.rfind(prefix, 0) == 0) all.push_back(name.substr(std::string_view(prefix).size()));
  all.push_back("language_model." + name);
  all.push_back("language_model.model." + name);
  for (const char* part : {"model.language_model.", "model.text_model."})
    if (name.rfind("model.", 0) == 0) all.push_back(part + name.substr(6));
  return all;
}

class Finder {
 public:
  Finder(const TensorSource& base, const Architecture& a) : base_(base), a_(a) {
    // The embedding decides for all.
    const std::string name = a.names.embedding + ".weight";
    const auto all = spellings(name);
    for (size_t i = 0; i < all.size() && !found_; ++i)
      if (base.contains(all[i])) spelling_ = i, found_ = true;
  }

  std::string spell(const std::string& name) const {
    const auto all = spellings(name);
    if (spelling_ < all.size() && base_.contains(all[spelling_])) return all[spelling_];
    for (const std::string& candidate : all)
      if (base_.contains(candidate)) return candidate;
    return all[std::min(spelling_, all.size() - 1)];
  }

 private:
  const TensorSource& base_;
  const Architecture& a_;
  size_t spelling_ = 0;
  bool found_ = false;
};

// An expert's matrix or bias inside a tensor of all experts. Returns false when the checkpoint has no such tensor.
bool find_fused_expert(const TensorSource& base, const Finder& finder, const Architecture& a, const std::string& prefix,
                       const LinearSpec& linear, bool bias, CanonicalTensor& entry, std::vector<int64_t>& stored_shape) {
  for (const std::string& tensor : linear.fused.tensors) {
    std::string name;
    for (const char* suffix : bias ? std::vector<const char*>{"_bias"} : std::vector<const char*>{"", ".weight"})
      if (const std::string candidate = finder.spell(prefix + tensor + suffix); base.contains(candidate)) name = candidate;
    if (name.empty()) continue;
    entry.stored = {name};
    entry.slice = linear.expert;
    entry.first_row = linear.fused.first_row;
    entry.row_step = linear.fused.row_step;
    entry.transposed = linear.fused.transposed && !bias;
    stored_shape = {a.experts, linear.fused.rows};
    if (!bias) stored_shape.insert(entry.transposed ? stored_shape.begin() + 1 : stored_shape.end(), linear.in);
    return true;
  }
  return false;
}

// The same as 4-bit codes and powers of two, each in a tensor of bytes of its own, as gpt-oss is published.
bool find_mxfp4_expert(const TensorSource& base, const std::string& origin, const Finder& finder, const Architecture& a, const std::string& prefix,
                       const LinearSpec& linear, const TensorSpec& spec, CanonicalTensor& entry) {
  for (const std::string& tensor : linear.fused.tensors) {
    const TensorInfo* codes = base.find(finder.spell(prefix + tensor + "_blocks"));
    const TensorInfo* exponents = base.find(finder.spell(prefix + tensor + "_scales"));
    if (!codes || !exponents) continue;
    std::vector<int64_t> shape = {a.experts, linear.fused.rows, linear.in / 32};
    for (const TensorInfo* stored : {exponents, codes}) {
      if (stored->dtype != DType::u8 || stored->shape != shape || linear.in % 32 != 0)
        throw InputError(fmt::format("{}: tensor \"{}\" is {} {}, expected U8 {} (for {})", origin, stored->name, name_of(stored->dtype), shape_text(stored->shape), shape_text(shape), spec.name));
      shape.push_back(16);
    }
    entry.info = {spec.name, DType::mxfp4, spec.shape, codes->file, codes->offset, static_cast<uint64_t>(linear.out * linear.in / 32 * 17)};
    entry.stored = {codes->name};
    entry.scale = exponents->name;
    entry.mxfp4 = true;
    entry.slice = linear.expert;
    entry.first_row = linear.fused.first_row;
    entry.row_step = linear.fused.row_step;
    return true;
  }
  return false;
}

void find_scale(const TensorSource& base, const std::string& origin, const std::vector<int64_t>& block_size, CanonicalTensor& entry) {
  if (entry.info.dtype != DType::f8_e4m3 && entry.info.dtype != DType::f8_e5m2) return;
  const std::string& stored = entry.stored.front();
  if (!ends_with(stored, ".weight") || entry.info.shape.size() != 2) return;
  for (const char* suffix : {"_scale_inv", "_scale"}) {
    const TensorInfo* scale = base.find(stored + suffix);
    if (!scale) continue;
    entry.scale = scale->name;
    const int64_t rows = entry.info.shape[0], columns = entry.info.shape[1];
    if (scale->elements() == 1 || (scale->elements() == rows && scale->shape.front() == rows)) return;
    const int64_t r = block_size.size() == 2 ? block_size[0] : 128, c = block_size.size() == 2 ? block_size[1] : 128;
    const std::vector<int64_t> expected = {(rows + r - 1) / r, (columns + c - 1) / c};
    if (scale->shape != expected)
      throw InputError(fmt::format("{}: tensor \"{}\" has shape {}, expected one value, one a row ({}) or one a block of {}×{} ({})", origin,
                                   scale->name, shape_text(scale->shape), rows, r, c, shape_text(expected)));
    entry.scale_block = {r, c};
    return;
  }
}

}  // namespace

std::shared_ptr<const CanonicalSource> canonical_safetensors(TensorSourcePtr base, const Architecture& a, const std::string& origin,
                                      const std::vector<int64_t>& block_size) {
  const Finder finder(*base, a);
  std::vector<CanonicalTensor> entries;
  std::vector<std::string> unread;
  // canonical: full name and shape; stored: the name in files, before the spelling.
  auto plain = [&](const TensorSpec& canonical, const std::string& stored, bool transposed = false) {
    CanonicalTensor entry;
    entry.stored = {finder.spell(stored)};
    std::vector<int64_t> shape = canonical.shape;
    if (transposed && shape.size() == 2) {
      entry.transposed = true;
      std::swap(shape[0], shape[1]);
    }
    const TensorInfo* found = base->find(entry.stored.front());
    if (found && canonical.maybe_row && found->shape == std::vector<int64_t>{1, shape[0]}) shape = found->shape;
    check_stored(*base, origin, canonical, entry, {shape});
    find_scale(*base, origin, block_size, entry);
    entries.push_back(std::move(entry));
  };
  for (const TensorSpec& spec : a.globals) plain(spec, spec.name);
  for (int64_t i = 0; i < a.blocks; ++i) {
    const std::string prefix = a.block_prefix(i), stored = a.stored_blocks.empty() ? prefix : a.block_prefix(a.stored_blocks[static_cast<size_t>(i)]);
    for (const LinearSpec& linear : a.layers[static_cast<size_t>(i)].linears) {
      for (const bool bias : {false, true}) {
        if (bias && !linear.bias) continue;
        const std::string name = linear.name + (bias ? ".bias" : ".weight");
        TensorSpec spec = {prefix + name, {linear.out}};
        if (!bias) spec.shape.push_back(linear.in);
        CanonicalTensor entry;
        std::vector<int64_t> stored_shape;
        if (linear.expert >= 0 && !base->contains(finder.spell(stored + name)) &&
            find_fused_expert(*base, finder, a, stored, linear, bias, entry, stored_shape)) {
          check_stored(*base, origin, spec, entry, {stored_shape});
          entries.push_back(std::move(entry));
        } else if (linear.expert >= 0 && !bias && find_mxfp4_expert(*base, origin, finder, a, stored, linear, spec, entry)) {
          entries.push_back(std::move(entry));
        } else {
          plain(spec, stored + name, linear.transposed);
        }
      }
    }
    for (const std::string& name : a.layers[static_cast<size_t>(i)].unread) unread.push_back(finder.spell(stored + name));
    for (const TensorSpec& other : a.layers[static_cast<size_t>(i)].others) {
      // The same tensor under the name of another version of its module.
      std::string name = other.name;
      for (const std::string& alias : other.aliases)
        if (!base->contains(finder.spell(stored + name)) && base->contains(finder.spell(stored + alias))) name = alias;
      TensorSpec canonical = other;
      canonical.name = prefix + other.name;
      plain(canonical, stored + name);
    }
  }
  return std::make_shared<CanonicalSource>(std::move(base), std::move(entries), unread);
}

}  // namespace qb
