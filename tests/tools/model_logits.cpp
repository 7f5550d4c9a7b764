// Logits of token ids: model_logits MODEL IN.safetensors OUT.safetensors [float32|bfloat16]
// IN holds "ids" [batch, seq] int64; OUT gets "logits" [batch, seq, vocabulary] float32 and "nll" [batch, seq - 1].
#include <iostream>

#include "core/base/error.h"
#include "core/format/safetensors.h"
#include "core/model/decoder.h"
#include "tests/tools/device.h"

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  try {
    auto model = qb::Model::open(argv[1]);
    const at::Tensor ids = qb::open_safetensors(argv[2])->read("ids").clone();
    const bool half = argc > 4 && std::string(argv[4]) == "bfloat16";
    qb::Decoder decoder(model, nullptr, half ? at::kBFloat16 : at::kFloat, wanted_device());
    at::Tensor hidden = decoder.embed(ids);
    for (int b = 0; b < decoder.blocks(); ++b) hidden = decoder.forward(decoder.load_block(b), hidden);
    qb::write_safetensors(argv[3], {{"logits", decoder.logits(hidden)}, {"nll", decoder.negative_log_likelihood(hidden, ids)}});
  } catch (const qb::Error& error) {
    std::cerr << (error.kind() == qb::ErrorKind::input ? "input error: " : "other error: ") << error.what() << "\n";
    return 1;
  }
  return 0;
}
