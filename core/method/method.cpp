#include "core/method/method.h"

#include "core/method/model_change.h"

namespace qb {
namespace {

class OutsideBlocks final : public Method {
 public:
  void apply(BlockWork&) override {}
};

}  // namespace

std::unique_ptr<Method> make_outside_blocks() { return std::make_unique<OutsideBlocks>(); }

void LinearWork::transform(const std::function<at::Tensor(const at::Tensor& weight)>& change) {
  const bool one = weight.is_same(reference);
  original.reset();
  weight = change(weight);
  reference = one ? weight : change(reference);
}

at::Tensor BlockWork::choose(const std::string& name, const std::function<at::Tensor()>& search) const {
  if (!choices) return search();
  if (const auto kept = choices->find(name); kept != choices->end()) return kept->second;
  at::Tensor found = search();
  return (*choices)[name] = found.defined() ? found.contiguous() : found;
}

void use_current_weights(BlockWork& work) {
  for (size_t i = 0; i < work.linears.size(); ++i) {
    const LinearWork& linear = work.linears[i];
    const at::Tensor weight = linear.quantized ? linear.quantized->dequantize() : linear.weight;
    work.block.linears[i].weight = weight.to(work.decoder.dtype()).to(work.decoder.weight_dtype()).to(work.decoder.device());
  }
}

}  // namespace qb
