#pragma once
#include "core/model/architecture.h"
#include "core/quant/scheme.h"

namespace qb {

// What a cache keeps of one token, in bytes: in 16 bits a value, and rounded (codes, and scales and zero points of ranges made for the token).
struct CacheSize {
  double plain = 0, rounded = 0;
};
CacheSize cache_size(const Architecture& architecture, const QuantSpec& spec);
// "keys and values of a token take 1.1 KB in place of 2.0 KB in 16 bits"
std::string cache_size_text(const Architecture& architecture, const QuantSpec& spec);

}  // namespace qb
