#pragma once
#include "core/engine/engine.h"

namespace qb {

// What a checkpoint that somebody else quantized has in place of the stages of a pipeline: codes for the linears, and its own numbers
// for all else. Whoever made it may have moved factors of channels from one tensor to another (AWQ, SmoothQuant): errors are taken
// in the coordinates that it chose, where these can be found out.
class GivenBlocks {
 public:
  GivenBlocks(const EngineJob& job, const Decoder& decoder);

  // Fills linears, biases, norms and so on of the block at work, and makes its statistics follow.
  void fill(BlockWork& work) const;
  // The model's numbers outside of blocks as the checkpoint has them; empty where they are the model's own.
  const TensorSourcePtr& outside() const { return outside_; }
  // Writes those beside the blocks of the run.
  void write_outside(const std::filesystem::path& folder) const;
  // A linear of the block as the checkpoint has it: codes, or a float weight. QuantizedLinear: nullptr where it stays float.
  const QuantizedLinear* find(const std::string& module) const;

 private:
  at::Tensor loaded(const std::string& name) const;  // as Decoder::load_block loads it
  void tell_storage(LinearWork& linear) const;
  void follow_norms_and_linears(BlockWork& work, const std::vector<at::Tensor>& given) const;

  const EngineJob& job_;
  const Decoder& decoder_;
  TensorSourcePtr numbers_;  // of the checkpoint
  std::map<std::string, const QuantizedLinear*> linears_;
  TensorSourcePtr outside_;
};

// The float original of a checkpoint as the run of it takes it: with a head of its own where the checkpoint has one.
std::shared_ptr<const Model> with_own_head(const std::shared_ptr<const Model>& original, const TensorSourcePtr& head);

}  // namespace qb
