#include "core/quant/storage.h"

#include <algorithm>
#include <cctype>

#include "core/base/error.h"

namespace qb {

const std::vector<StorageInfo>& storage_types() {
  static const std::vector<StorageInfo> types = {
      {.storage = Storage::q4_0, .name = "q4_0", .number = "int4", .group = 32, .bits = 4.5},
      {.storage = Storage::q4_1, .name = "q4_1", .number = "int4", .group = 32, .minimum = true, .bits = 5},
      {.storage = Storage::q5_0, .name = "q5_0", .number = "int5", .group = 32, .bits = 5.5},
      {.storage = Storage::q5_1, .name = "q5_1", .number = "int5", .group = 32, .minimum = true, .bits = 6},
      {.storage = Storage::q8_0, .name = "q8_0", .number = "int8", .group = 32, .bits = 8.5},
      {.storage = Storage::q2_k, .name = "q2_K", .number = "int2", .group = 16, .super = 256, .minimum = true, .scale_low = 1, .scale_high = 15, .minimum_high = 15, .bits = 2.625, .fallback = "iq4_nl"},
      {.storage = Storage::q3_k, .name = "q3_K", .number = "int3", .group = 16, .super = 256, .scale_low = -32, .scale_high = 31, .bits = 3.4375, .fallback = "iq4_nl"},
      {.storage = Storage::q4_k, .name = "q4_K", .number = "int4", .group = 32, .super = 256, .minimum = true, .scale_low = 1, .scale_high = 63, .minimum_high = 63, .bits = 4.5, .fallback = "q5_0"},
      {.storage = Storage::q5_k, .name = "q5_K", .number = "int5", .group = 32, .super = 256, .minimum = true, .scale_low = 1, .scale_high = 63, .minimum_high = 63, .bits = 5.5, .fallback = "q5_1"},
      {.storage = Storage::q6_k, .name = "q6_K", .number = "int6", .group = 16, .super = 256, .scale_low = -128, .scale_high = 127, .bits = 6.5625, .fallback = "q8_0"},
      {.storage = Storage::iq4_nl, .name = "iq4_nl", .number = "int8", .group = 32, .bits = 4.5},
      {.storage = Storage::mxfp4, .name = "mxfp4", .number = "e2m1", .group = 32, .bits = 4.25},
      {.storage = Storage::mxfp8, .name = "mxfp8", .number = "e4m3", .group = 32, .bits = 8.25},
      {.storage = Storage::nvfp4, .name = "nvfp4", .number = "e2m1", .group = 16, .bits = 4.5},
  };
  return types;
}

const StorageInfo& info_of(Storage storage) {
  for (const StorageInfo& info : storage_types())
    if (info.storage == storage) return info;
  throw InternalError("the scheme fixes no storage type");
}

std::optional<Storage> parse_storage(const std::string& text) {
  auto same = [](char a, char b) { return std::tolower(static_cast<unsigned char>(a)) == std::tolower(static_cast<unsigned char>(b)); };
  for (const StorageInfo& info : storage_types()) {
    const std::string name = info.name;
    if (std::equal(name.begin(), name.end(), text.begin(), text.end(), same)) return info.storage;
  }
  return std::nullopt;
}

}  // namespace qb
