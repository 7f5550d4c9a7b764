// How far predictions are apart: model_divergence MODEL IN.safetensors OUT.safetensors
// IN holds "student" and "teacher", hidden states behind the last block [batch, seq, hidden] float32; OUT gets "divergence" [1] float64,
// the sum over tokens of KL(teacher ‖ student), and "gradient", its gradient by the student's states.
#include <iostream>

#include "core/base/error.h"
#include "core/format/safetensors.h"
#include "core/model/decoder.h"
#include "tests/tools/device.h"

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  try {
    const auto in = qb::open_safetensors(argv[2]);
    const at::Device device = wanted_device();
    qb::Decoder decoder(qb::Model::open(argv[1]), nullptr, at::kFloat, device);
    const auto [sum, gradient] = decoder.divergence(in->read("student").to(device), in->read("teacher").to(device));
    qb::write_safetensors(argv[3], {{"divergence", at::tensor({sum}, at::kDouble)}, {"gradient", gradient}});
  } catch (const qb::Error& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}
