#pragma once
#include <string>
#include <vector>

#include "core/method/method.h"

namespace qb {

// Linears that read one vector, and what makes that vector: a channel can be divided by a factor where it is made and
// multiplied where it is read, and the block stays the same function.
struct ScaleGroup {
  enum class Producer { norm, linear };
  std::vector<size_t> linears;        // readers, indices into BlockWork::linears
  std::vector<ValueId> values;        // whose statistics are of that vector (experts: of the tokens routed to them)
  std::vector<std::string> routers;   // further readers among the block's others, [n, in], without ".weight"
  Producer producer = Producer::norm;
  std::string norm;                   // norm: its name inside the block
  bool plus_one = false;              // norm: it multiplies by 1 + weight
  size_t linear = 0;                  // linear: index into BlockWork::linears
  at::Tensor rows;                    // [in] int64: the linear's row, or the norm's weight, that makes each channel
  int64_t count = 0;                  // of the linear's rows, or of the norm's weights
  bool shared_rows = false;           // several channels come from one row (grouped-query attention) or weight (a norm of heads): they share a factor
  double power = 1;                   // a factor s of a row is s^power of its channels
};

// The groups of a block whose producer can take a factor in, in order of the forward pass, as the layer's graph has them. Left
// out: what something else reads too, what lies behind an activation that is not linear in its input, and what is transformed
// at run time before it is read.
std::vector<ScaleGroup> scale_groups(const BlockWork& work);

// What the producer's rows or weights [count] are divided by when the channels are by scale [in], equal where they share one. Lets
// gradients through.
at::Tensor by_row(const ScaleGroup& group, const at::Tensor& scale);

// Factors that a group's producer can take in: channels of one row get their geometric mean, values finite and above 0.
at::Tensor feasible(const ScaleGroup& group, const at::Tensor& scale);
// Logarithms of factors [in], those of channels that share a row replaced by their mean. Lets gradients through.
at::Tensor tied(const ScaleGroup& group, const at::Tensor& log_scale);

// Divides the vector by scale [in] and makes readers, producer and statistics follow. A norm is rounded to the run's dtype,
// and the readers are multiplied by what it really became.
void apply_scale(BlockWork& work, const ScaleGroup& group, const at::Tensor& scale);

// The second half of it: readers and statistics of a vector whose producer has taken in scale already.
void scale_readers(BlockWork& work, const ScaleGroup& group, const at::Tensor& scale);

// Subtracts shift [in] from the vector; readers get it back through their biases. Needs a producer with a bias.
bool can_shift(const BlockWork& work, const ScaleGroup& group);
void apply_shift(BlockWork& work, const ScaleGroup& group, const at::Tensor& shift);

}  // namespace qb
