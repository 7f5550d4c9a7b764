// Logits of token ids made piece by piece with a cache of keys and values: cached_logits IN.safetensors (MODEL OUT.safetensors)…
// IN holds "ids" [batch, seq] int64; OUT gets "logits" [batch, seq, vocabulary] float32. Most pieces are one token.
#include <iostream>

#include "core/base/error.h"
#include "core/format/safetensors.h"
#include "core/model/decoder.h"
#include "tests/tools/device.h"

namespace {

at::Tensor logits_by_pieces(const std::string& path, const at::Tensor& ids) {
  qb::Decoder decoder(qb::Model::open(path), nullptr, at::kFloat, wanted_device());
  std::vector<qb::Block> blocks;
  for (int b = 0; b < decoder.blocks(); ++b) blocks.push_back(decoder.load_block(b));
  qb::KeyValueCache cache;
  std::vector<at::Tensor> parts;
  for (int64_t first = 0, piece = 0; first < ids.size(1); ++piece) {
    // A prompt, single tokens, and once several behind others.
    const int64_t count = std::min(ids.size(1) - first, piece == 0 ? int64_t{5} : piece == 20 ? int64_t{7} : int64_t{1});
    at::Tensor part = decoder.embed(ids.narrow(1, first, count), first);
    for (const qb::Block& block : blocks) part = decoder.forward(block, part, {.cache = &cache});
    parts.push_back(decoder.logits(part));
    first += count;
  }
  return at::cat(parts, 1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4 || argc % 2 != 0) return 2;
  try {
    const at::Tensor ids = qb::open_safetensors(argv[1])->read("ids").clone();
    for (int i = 2; i < argc; i += 2) qb::write_safetensors(argv[i + 1], {{"logits", logits_by_pieces(argv[i], ids)}});
  } catch (const qb::Error& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}
