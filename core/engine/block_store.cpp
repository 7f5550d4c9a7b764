#include "core/engine/block_store.h"

#include <fmt/format.h>

#include <unordered_map>

#include "core/base/error.h"
#include "core/format/safetensors.h"

namespace qb {
namespace {

constexpr const char *kCodes = ".codes", *kScale = ".scale", *kZero = ".zero", *kLayout = ".layout";
constexpr int64_t kLayoutFields = 9;

// What dequantization needs of a spec, as numbers beside the codes: a block file stands for itself.
at::Tensor layout_of(const QuantSpec& spec) {
  return at::tensor({static_cast<int64_t>(spec.type.kind), static_cast<int64_t>(spec.type.bits), static_cast<int64_t>(spec.type.exponent_bits),
                     static_cast<int64_t>(spec.type.mantissa_bits), static_cast<int64_t>(spec.granularity), spec.group_size, spec.block_rows,
                     spec.block_cols, spec.heads},
                    at::kLong);
}

QuantSpec spec_of(const at::Tensor& layout, bool symmetric) {
  const auto* field = layout.const_data_ptr<int64_t>();
  QuantSpec spec;
  spec.type = {static_cast<NumberType::Kind>(field[0]), static_cast<int>(field[1]), static_cast<int>(field[2]), static_cast<int>(field[3])};
  spec.granularity = static_cast<Granularity>(field[4]);
  spec.group_size = field[5];
  spec.block_rows = field[6];
  spec.block_cols = field[7];
  spec.heads = field[8];
  spec.symmetric = symmetric;
  return spec;
}

class BlockSource final : public TensorSource {
 public:
  explicit BlockSource(const std::vector<std::filesystem::path>& paths) {
    for (const auto& path : paths) {
      auto stored = open_safetensors(path);
      for (const TensorInfo& info : stored->tensors()) {
        if (info.name.ends_with(kScale) || info.name.ends_with(kZero) || info.name.ends_with(kLayout)) continue;
        TensorInfo seen = info;
        const bool coded = info.name.ends_with(kCodes);
        if (coded) {
          seen.name = info.name.substr(0, info.name.size() - std::string(kCodes).size());
          seen.dtype = DType::f32;
          for (const char* part : {kScale, kLayout})
            if (!stored->contains(seen.name + part)) throw InputError(fmt::format("{}: tensor \"{}{}\" is missing", path.string(), seen.name, part));
        }
        seen.file = static_cast<int>(files_.size());
        index_[seen.name] = {tensors_.size(), sources_.size(), coded};
        tensors_.push_back(std::move(seen));
      }
      files_.push_back(path);
      sources_.push_back(std::move(stored));
    }
  }

  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const std::vector<std::filesystem::path>& files() const override { return files_; }
  const TensorInfo* find(const std::string& name) const override {
    const auto it = index_.find(name);
    return it == index_.end() ? nullptr : &tensors_[it->second.tensor];
  }
  at::Tensor read(const std::string& name) const override {
    const auto it = index_.find(name);
    if (it == index_.end()) throw InputError(fmt::format("no tensor \"{}\" among the quantized blocks", name));
    const TensorSource& source = *sources_[it->second.source];
    if (!it->second.coded) return source.read(name);
    const at::Tensor layout = source.read(name + kLayout);
    if (layout.scalar_type() != at::kLong || layout.numel() != kLayoutFields)
      throw InputError(fmt::format("{}: tensor \"{}{}\" is not a layout", source.files().front().string(), name, kLayout));
    const bool has_zero = source.contains(name + kZero);
    const QuantizedWeight weight{spec_of(layout, !has_zero), source.read(name + kCodes),
                                 {source.read(name + kScale), has_zero ? source.read(name + kZero) : at::Tensor()}};
    return weight.dequantize();
  }

 private:
  struct Place {
    size_t tensor, source;
    bool coded;
  };
  std::vector<TensorInfo> tensors_;
  std::vector<std::filesystem::path> files_;
  std::vector<TensorSourcePtr> sources_;
  std::unordered_map<std::string, Place> index_;
};

}  // namespace

void write_block(const std::filesystem::path& path, const BlockWork& work) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const LinearWork& linear : work.linears) {
    const std::string& name = linear.info.tensor;
    if (linear.quantized) {
      const QuantizedWeight& q = *linear.quantized;
      tensors.emplace_back(name + kCodes, q.codes);
      tensors.emplace_back(name + kScale, q.grid.scale);
      if (q.grid.zero.defined()) tensors.emplace_back(name + kZero, q.grid.zero);
      tensors.emplace_back(name + kLayout, layout_of(q.spec));
    } else if (!linear.weight.is_same(linear.original)) {
      tensors.emplace_back(name, linear.weight);
    }
  }
  write_safetensors(path, tensors);
}

TensorSourcePtr open_blocks(const std::vector<std::filesystem::path>& paths) { return std::make_shared<BlockSource>(paths); }

}  // namespace qb
