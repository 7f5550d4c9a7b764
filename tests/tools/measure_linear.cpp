// Measures one linear as a run does: measure_linear MODEL INPUT.safetensors BITS GROUP ACTIVATION_BITS
// INPUT holds "weight" [out, in] and "rows" [tokens, in]; MODEL is any model (a block view wants one). ACTIVATION_BITS 0: float.
// Writes the dequantized weight and the fake-quantized rows to INPUT.out.safetensors and prints the block's report as JSON.
#include <iostream>

#include "core/base/error.h"
#include "core/format/safetensors.h"
#include "core/measure/block_measure.h"
#include "core/measure/report_json.h"

int main(int argc, char** argv) {
  if (argc < 6) return 2;
  try {
    const auto input = qb::open_safetensors(argv[2]);
    const at::Tensor weight = input->read("weight").to(at::kFloat), rows = input->read("rows").to(at::kFloat);
    qb::Scheme scheme;
    scheme.weights = qb::QuantSpec{};
    scheme.weights->type = *qb::NumberType::parse(std::string("int") + argv[3]);
    scheme.weights->group_size = std::stoll(argv[4]);
    scheme.weights->symmetric = false;
    if (std::stoi(argv[5]) > 0) {
      scheme.activations = qb::QuantSpec{};
      scheme.activations->type = *qb::NumberType::parse(std::string("int") + argv[5]);
      scheme.activations->granularity = qb::Granularity::token;
    }
    auto model = qb::Model::open(argv[1]);
    const qb::Decoder decoder(model, model->source, at::kFloat);
    qb::Block block;
    qb::BlockWork work{block, {}, {}, decoder, 0, {}, {}};
    qb::LinearWork linear;
    linear.info.name = "proj";
    linear.info.tensor = "model.layers.0.proj.weight";
    linear.info.subset = "proj";
    linear.info.out_features = weight.size(0);
    linear.info.in_features = weight.size(1);
    linear.module = "model.layers.0.proj";
    linear.spec = scheme.weights;
    linear.original = linear.reference = linear.weight = weight;
    linear.quantized = qb::quantize(weight, *scheme.weights);
    const at::Tensor after = linear.quantized->dequantize();
    work.linears.push_back(linear);
    qb::ValueStatistics statistics;
    statistics.tokens = rows.size(0);
    statistics.rows = rows;
    statistics.abs_max = rows.abs().amax(0);
    work.statistics[0] = statistics;
    qb::write_safetensors(std::string(argv[2]) + ".out.safetensors",
                          {{"weight", after}, {"rows", scheme.activations ? qb::fake_quantize(rows, *scheme.activations) : rows}});
    std::cout << qb::to_json(qb::measure_block({work, decoder, rows, rows * 1.5, 0}, scheme)) << std::endl;
  } catch (const qb::Error& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}
