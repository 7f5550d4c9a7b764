// model_guidance MODEL IDS OUT GROUPS SEED: guided statistics of a float model. IDS holds "ids" [samples, length] int64; OUT gets, of every linear MODULE,
// MODULE.tokens [groups, tokens], MODULE.outputs [out], MODULE.grams [groups, in, in], and of what it reads MODULE.inputs [rows, in] and MODULE.rows [rows], the
// tokens that these are of.
#include <ATen/core/grad_mode.h>

#include <iostream>

#include "core/base/error.h"
#include "core/engine/collector.h"
#include "core/engine/guidance.h"
#include "core/engine/module_name.h"
#include "core/format/safetensors.h"
#include "tests/tools/device.h"

namespace {

void carry_out(char** argv) {
  const auto model = qb::Model::open(argv[1]);
  const at::Tensor ids = qb::open_safetensors(argv[2])->read("ids").clone();
  qb::TokenSet tokens;
  for (int64_t s = 0; s < ids.size(0); ++s) tokens.samples.emplace_back(ids[s].const_data_ptr<int64_t>(), ids[s].const_data_ptr<int64_t>() + ids.size(1));
  const std::filesystem::path out = argv[3];
  const qb::GuidanceOptions options{std::stoll(argv[4]), std::stoull(argv[5]), 0, out.string() + ".folder"};
  qb::Decoder decoder(model, model->source, at::kFloat, wanted_device());
  const qb::Guidance guidance(model, decoder, tokens, options, {}, [](int, double) {});
  std::vector<std::pair<std::string, at::Tensor>> found;
  at::Tensor hidden = decoder.embed(ids.to(wanted_device()));
  for (int b = 0; b < decoder.blocks(); ++b) {
    const auto of_linears = guidance.of(b, wanted_device());
    qb::Collector collector(static_cast<qb::Statistics>(qb::Statistic::gram), 1, 1);
    collector.guide(decoder.graph(b), of_linears);
    collector.begin_batch(0);
    std::map<qb::ValueId, at::Tensor> values;
    const auto collect = collector.tap({});
    hidden = decoder.forward(decoder.load_block(b), hidden, {.at_value = [&](const qb::GraphValue& value, const at::Tensor& x) {
                               values[value.id] = x.clone();
                               return collect(value, x);
                             }});
    auto statistics = collector.take();
    const auto& linears = model->info.blocks[static_cast<size_t>(b)].linears;
    for (size_t i = 0; i < linears.size(); ++i) {
      const std::string module = qb::module_of(linears[i]);
      auto add = [&](const char* what, const at::Tensor& t) { found.emplace_back(module + what, t.to(at::kCPU).contiguous()); };
      add(".tokens", of_linears[i].tokens);
      add(".outputs", of_linears[i].outputs);
      const auto read = values.find(linears[i].input);
      if (read == values.end()) continue;  // no token came
      add(".grams", statistics.at(linears[i].input).guided.at(i));
      add(".inputs", read->second);
      const auto choice = qb::token_choice(decoder.graph(b), linears[i].input);
      add(".rows", choice ? values.at(*choice).select(1, 0) : at::arange(read->second.size(0)));
    }
  }
  qb::write_safetensors(out, found);
}

}  // namespace

int main(int argc, char** argv) {
  const at::NoGradGuard no_grad;
  try {
    if (argc != 6) throw qb::InputError("usage: model_guidance MODEL IDS OUT GROUPS SEED");
    carry_out(argv);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
