#pragma once
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "core/base/control.h"
#include "core/base/error.h"
#include "core/model/decoder.h"

namespace qb {

// Which windows of a text a model computes, and how.
struct WindowSpec {
  int64_t seq_len = 2048;
  int64_t windows = 0;                  // 0: all
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  LinearTap tap = {};                   // activation fake-quantization, may be empty
  CacheTap cache_tap = {};              // of keys and values, may be empty
};

std::string dtype_text(at::ScalarType dtype);  // "float32", "bfloat16", "float16"

// How far an evaluation is that may make several passes: counts steps of about equal cost and reports them.
class PassProgress {
 public:
  PassProgress(const Control& control, std::string stage, double steps);
  void advance(int block, int blocks, double steps = 1);
  double seconds() const;

 private:
  const Control& control_;
  std::string stage_;
  double steps_, done_ = 0;
  std::chrono::steady_clock::time_point start_;
};

// A model's pass over the non-overlapping windows of a text, remainder dropped. Block by block: resident memory is one block
// plus the hidden states of a chunk of windows.
class WindowPass {
 public:
  // evaluator: who asks, for messages. Throws InputError when the text has fewer than seq_len tokens or seq_len passes the model's context.
  WindowPass(std::string evaluator, std::shared_ptr<const Model> model, TensorSourcePtr source, const std::vector<int32_t>& ids, const WindowSpec& spec, const Control& control);

  int64_t windows() const { return windows_; }              // of this pass
  int64_t windows_total() const { return windows_total_; }  // in the text
  int64_t chunk() const { return chunk_; }                  // windows whose hidden states are held together
  double steps(int64_t windows) const { return static_cast<double>(windows) * (decoder_.blocks() + 1); }
  Decoder& decoder() { return decoder_; }
  at::Tensor tokens(int64_t window) const;                  // [1, seq_len] int64
  // What the last block makes of windows first … first + count, each [1, seq_len, carried width]; a step for each window and block.
  std::vector<at::Tensor> through_blocks(int64_t first, int64_t count, PassProgress& progress);
  // A window's step after the blocks.
  void scored(PassProgress& progress) const { progress.advance(-1, decoder_.blocks()); }
  // Why a window's loss is no number: weights that are none, or else the arithmetic.
  InputError not_a_number(int64_t window) const;

 private:
  std::string evaluator_;
  std::shared_ptr<const Model> model_;
  TensorSourcePtr source_;
  const std::vector<int32_t>& ids_;
  WindowSpec spec_;
  const Control& control_;
  Decoder decoder_;
  int64_t windows_ = 0, windows_total_ = 0, chunk_ = 1;
};

}  // namespace qb
