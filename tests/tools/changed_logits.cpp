// Logits of a model changed by a whole-model stage: changed_logits MODEL IN.safetensors OUT.safetensors METHOD [knob=value …]
// IN holds "ids" [batch, seq] int64, which also serve as calibration text; OUT gets "logits".
#include <filesystem>
#include <iostream>

#include "core/base/error.h"
#include "core/engine/engine.h"
#include "core/format/safetensors.h"
#include "tests/tools/device.h"
#include "tests/tools/stage.h"

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  try {
    const auto model = qb::Model::open(argv[1]);
    const at::Tensor ids = qb::open_safetensors(argv[2])->read("ids").clone();
    std::map<std::string, std::string> given;
    for (int i = 5; i < argc; ++i) {
      const std::string pair = argv[i];
      given[pair.substr(0, pair.find('='))] = pair.substr(pair.find('=') + 1);
    }
    const qb::StageSpec stage = stage_of(argv[4], given);
    qb::TokenSet tokens;
    for (int64_t b = 0; b < ids.size(0); ++b) {
      const auto* row = ids[b].const_data_ptr<int64_t>();
      tokens.samples.emplace_back(row, row + ids.size(1));
    }
    qb::EngineJob job;
    job.model = model;
    job.pipeline = {stage};
    job.calibration = tokens;
    job.seed = 5;
    job.folder = std::filesystem::path(argv[3]).parent_path();
    const auto changed = qb::changed_model(job, {});
    qb::Decoder decoder(changed, nullptr, at::kFloat, wanted_device());
    at::Tensor hidden = decoder.embed(ids);
    for (int b = 0; b < decoder.blocks(); ++b) hidden = decoder.forward(decoder.load_block(b), hidden);
    qb::write_safetensors(argv[3], {{"logits", decoder.logits(hidden)}});
  } catch (const qb::Error& error) {
    std::cerr << error.what() << "\n";
    return error.kind() == qb::ErrorKind::input ? 3 : 1;
  }
  return 0;
}
