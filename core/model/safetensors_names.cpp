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

bool is_float8(DType type) { return type == DType::f8_e4m3 || type == DType::f8_e5m2; }

[[noreturn]] void refuse_without_scale(const std::string& origin, const CanonicalTensor& entry, const std::string& expected) {
  const std::string& stored = entry.stored.front();
  throw InputError(fmt::format("{}: tensor \"{}\"{} is stored as {}, whose values mean nothing without their scale; expected {}", origin, stored,
                               stored == entry.info.name ? "" : fmt::format(" (for {})", entry.info.name), name_of(entry.info.dtype), expected));
}

// Of F8 weights, what multiplies them, by whatever name: DeepSeek's and transformers' *_inv, that of compressed-tensors, modelopt and fbgemm,
// DeepSeek's later one.
void find_scale(const TensorSource& base, const std::string& origin, const std::vector<int64_t>& block_size, CanonicalTensor& entry) {
  if (!is_float8(entry.info.dtype)) return;
  const std::string& stored = entry.stored.front();
  if (!ends_with(stored, ".weight") || entry.info.shape.size() != 2) refuse_without_scale(origin, entry, "F32, F16 or BF16: scales stand beside matrices");
  const std::string module = stored.substr(0, stored.size() - std::string_view("weight").size());
  const TensorInfo* scale = nullptr;
  for (const char* name : {"weight_scale_inv", "weight_scale", "scale"})
    if (!scale) scale = base.find(module + name);
  if (!scale) refuse_without_scale(origin, entry, fmt::format("\"{0}weight_scale_inv\", \"{0}weight_scale\" or \"{0}scale\" beside it", module));
  switch (scale->dtype) {
    case DType::f64: case DType::f32: case DType::f16: case DType::bf16: case DType::f8_e8m0: break;
    default: throw InputError(fmt::format("{}: tensor \"{}\" is stored as {}, expected a scale in F32, F16, BF16 or F8_E8M0", origin, scale->name, name_of(scale->dtype)));
  }
  entry.scale = scale->name;
  const int64_t rows = entry.info.shape[0], columns = entry.info.shape[1];
  if (scale->elements() == 1 || (scale->elements() == rows && scale->shape.front() == rows)) return;
  const int64_t r = block_size.size() == 2 ? block_size[0] : 128, c = block_size.size() == 2 ? block_size[1] : 128;
  const std::vector<int64_t> expected = {(rows + r - 1) / r, (columns + c - 1) / c}, apart = {expected[0], 1, expected[1], 1};  // as modelopt has it
  if (scale->shape != expected && scale->shape != apart)
    throw InputError(fmt::format("{}: tensor \"{}\" has shape {}, expected one value, one a row ({}) or one a block of {}×{} ({})", origin,
                                 scale->name, shape_text(scale->shape), rows, r, c, shape_text(expected)));
  entry.scale_block = {r, c};
}

// Row by row, so that neither is in memory as a whole.
bool equal_matrices(const TensorSource& base, const TensorInfo& a, const TensorInfo& b) {
  if (a.shape != b.shape || is_float8(a.dtype) || is_float8(b.dtype)) return false;
  if (a.file == b.file && a.offset == b.offset && a.dtype == b.dtype && a.bytes > 0) return true;  // torch's files: one storage
  const at::Tensor left = base.read(a.name), right = base.read(b.name);
  for (int64_t row = 0; row < left.size(0); row += 1024) {
    const int64_t rows = std::min<int64_t>(1024, left.size(0) - row);
    const at::Tensor x = left.narrow(0, row, rows), y = right.narrow(0, row, rows);
    if (a.dtype == b.dtype ? !at::equal(x, y) : !at::equal(x.to(at::kFloat), y.to(at::kFloat))) return false;
  }
  return true;
}

}  // namespace

std::string settle_head(const TensorSource& base, Architecture& a) {
  if (!a.tied_embeddings) return {};
  const Finder finder(base, a);
  const TensorInfo *embedding = base.find(finder.spell(a.names.embedding + ".weight")), *head = base.find(finder.spell(a.names.head + ".weight"));
  if (!embedding || !head || equal_matrices(base, *embedding, *head)) return {};
  a.tied_embeddings = false;
  a.globals.push_back({a.names.head + ".weight", {a.vocabulary, a.embedding_size}, a.gguf.head + ".weight"});
  return fmt::format("the configuration ties the head to the embedding, but \"{}\" is stored too and differs: it is used", head->name);
}

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
  // A tied pair may be stored under the head's name alone.
  const std::string embedding = a.names.embedding + ".weight", head = a.names.head + ".weight";
  const bool by_head = a.tied_embeddings && !base->contains(finder.spell(embedding)) && base->contains(finder.spell(head));
  for (const TensorSpec& spec : a.globals) plain(spec, by_head && spec.name == embedding ? head : spec.name);
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
          if (is_float8(entry.info.dtype)) refuse_without_scale(origin, entry, "experts in F8 one by one, each with its scale, or all of them in F32, F16 or BF16");
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
