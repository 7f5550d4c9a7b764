// What a model is, one JSON line: model_inspect MODEL [MODEL …]. A model that cannot be opened gives {"error": …, "kind": …}.
#include <chrono>
#include <iostream>

#include "core/base/error.h"
#include "core/model/model.h"

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    nlohmann::json line;
    const auto start = std::chrono::steady_clock::now();
    try {
      const qb::ModelInfo info = qb::Model::open(argv[i])->info;
      line = {{"name", info.name}, {"family", info.family}, {"format", info.format}, {"parameters", info.parameters},
              {"bytes", info.bytes}, {"dtype", info.dtype}, {"blocks", info.blocks.size()}, {"tied", info.tied_embeddings}};
      for (const qb::LinearInfo& linear : info.blocks.front().linears)
        line["linears"].push_back({{"name", linear.name}, {"tensor", linear.tensor}, {"subset", linear.subset}, {"shape", {linear.out_features, linear.in_features}}, {"dtype", linear.dtype}, {"bytes", linear.bytes}});
    } catch (const qb::Error& error) {
      line = {{"error", error.what()}, {"kind", error.kind() == qb::ErrorKind::input ? "input" : "other"}};
    } catch (const std::exception& error) {
      line = {{"error", error.what()}, {"kind", "foreign"}};
    }
    line["milliseconds"] = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    std::cout << line.dump() << std::endl;
  }
  return 0;
}
