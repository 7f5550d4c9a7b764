#pragma once
#include <filesystem>
#include <map>
#include <memory>

#include "core/method/method.h"
#include "core/quant/quantized_model.h"

namespace qb {

// Writes a finished block: packed codes and grid of every rounded linear, with what they mean as JSON in the file's metadata
// (schemas 2 to 4); float weights, biases, norms and so on that stages replaced, in full; all with checksums. `loaded` is the block
// before its stages. Atomic and fsynced.
void write_block(const std::filesystem::path& path, const BlockWork& work, const Block& loaded);

// The same of one matrix outside of blocks: the embedding's or the head's codes.
void write_codes(const std::filesystem::path& path, const std::string& weight, const QuantizedWeight& codes);

// What of a grid is no zero point, under the names of block files and of files of tuned grids.
std::vector<std::pair<std::string, at::Tensor>> scale_tensors(const std::string& weight, const ScaleZero& grid);

// One written block, readable without its recipe.
class BlockFile {
 public:
  // older: what files of schema 1 do not say (how scales and zero points are stored, activations); nullptr: left at defaults.
  // Throws InputError naming file and tensor where a file is damaged.
  explicit BlockFile(const std::filesystem::path& path, const Scheme* older = nullptr);

  const std::map<std::string, QuantizedLinear>& linears() const { return linears_; }  // by weight: "model.layers.0.mlp.up_proj.weight"
  const TensorSource& stored() const { return *stored_; }
  const std::optional<QuantizedCache>& cache() const { return cache_; }
  std::vector<TensorInfo> floats() const;                                             // what is stored as numbers
  QuantizedWeight read(const std::string& weight) const;
  ScaleZero read_grid(const std::string& weight) const;
  // An original weight in the coordinates that scalings chose: what was rounded where nothing else changed it. float32.
  at::Tensor transformed(const std::string& weight, const at::Tensor& original) const;

 private:
  QuantizedWeight read_codes_and_exceptions(const QuantizedLinear& linear, const std::string& weight, ScaleZero grid) const;
  std::filesystem::path path_;
  TensorSourcePtr stored_;
  std::map<std::string, QuantizedLinear> linears_;
  std::optional<QuantizedCache> cache_;
};

// A quantized model of written blocks and files of write_codes(). tuned: a file of grids ("NAME.scale" and so on) and other tensors that replace the blocks' own; empty: none.
QuantizedModel open_blocks(const std::shared_ptr<const Model>& model, const std::vector<std::filesystem::path>& paths,
                           const std::filesystem::path& tuned = {}, const Scheme* older = nullptr);

}  // namespace qb
