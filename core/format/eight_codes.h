#pragma once
#include <bit>
#include <cstdint>
#include <cstring>

// Eight codes of B bits (1 … 8) are B bytes of a little-endian stream of bits; here all eight at once, between there and a byte each.
namespace qb {

static_assert(std::endian::native == std::endian::little);

// Low and high of two neighbours of so many bits, in each lane of a word.
template <int Bits, int Lane>
struct Neighbours {
  static constexpr uint64_t ones = Bits == 64 ? ~uint64_t{0} : (uint64_t{1} << Bits) - 1;
  static constexpr uint64_t low = ones * (Lane == 64 ? 1 : Lane == 32 ? 0x0000000100000001 : 0x0001000100010001), high = low << Bits;
  static constexpr int apart = Lane / 2 - Bits;
  static constexpr uint64_t part(uint64_t x) { return (x & low) | (x & high) << apart; }
  static constexpr uint64_t join(uint64_t x) { return (x & low) | (x >> apart & high); }
};

template <int B>
constexpr uint64_t spread_codes(uint64_t x) {
  return Neighbours<B, 16>::part(Neighbours<2 * B, 32>::part(Neighbours<4 * B, 64>::part(x)));
}
template <int B>
constexpr uint64_t gather_codes(uint64_t x) {
  return Neighbours<4 * B, 64>::join(Neighbours<2 * B, 32>::join(Neighbours<B, 16>::join(x)));
}

// Adds to each byte by itself.
constexpr uint64_t add_to_bytes(uint64_t x, uint8_t value) {
  constexpr uint64_t each = 0x0101010101010101, tops = 0x80 * each;
  const uint64_t y = value * each;
  return ((x & ~tops) + (y & ~tops)) ^ ((x ^ y) & tops);
}

// B bytes in registers: a copy through memory of 3, 5, 6 or 7 makes its reader wait.
template <int B>
uint64_t load_bytes(const uint8_t* from) {
  uint64_t x = 0;
  if constexpr (B == 8) {
    std::memcpy(&x, from, 8);
    return x;
  }
  int at = 0;
  if constexpr (B >= 4) {
    uint32_t four;
    std::memcpy(&four, from, 4);
    x = four, at = 4;
  }
  if constexpr (B % 4 >= 2) {
    uint16_t two;
    std::memcpy(&two, from + at, 2);
    x |= uint64_t{two} << (8 * at), at += 2;
  }
  if constexpr (B % 2 == 1) x |= uint64_t{from[at]} << (8 * at);
  return x;
}

// `eights` times eight codes; `offset` is added to each, modulo 256: after unpacking, before packing.
template <int B>
void unpack_eights(const uint8_t* from, uint8_t* to, int64_t eights, uint8_t offset) {
  for (int64_t e = 0; e < eights; ++e) {
    const uint64_t x = add_to_bytes(spread_codes<B>(load_bytes<B>(from + e * B)), offset);
    std::memcpy(to + e * 8, &x, 8);
  }
}
template <int B>
void pack_eights(const uint8_t* from, uint8_t* to, int64_t eights, uint8_t offset) {
  for (int64_t e = 0; e < eights; ++e) {
    uint64_t x;
    std::memcpy(&x, from + e * 8, 8);
    x = gather_codes<B>(add_to_bytes(x, offset));
    std::memcpy(to + e * B, &x, B);
  }
}

// The two for bits that are not known before: nullptr for other than 1 … 8.
using EightsLoop = void (*)(const uint8_t* from, uint8_t* to, int64_t eights, uint8_t offset);
inline EightsLoop unpacking_loop(int bits) {
  constexpr EightsLoop loops[] = {unpack_eights<1>, unpack_eights<2>, unpack_eights<3>, unpack_eights<4>, unpack_eights<5>, unpack_eights<6>, unpack_eights<7>, unpack_eights<8>};
  return bits < 1 || bits > 8 ? nullptr : loops[bits - 1];
}
inline EightsLoop packing_loop(int bits) {
  constexpr EightsLoop loops[] = {pack_eights<1>, pack_eights<2>, pack_eights<3>, pack_eights<4>, pack_eights<5>, pack_eights<6>, pack_eights<7>, pack_eights<8>};
  return bits < 1 || bits > 8 ? nullptr : loops[bits - 1];
}

}  // namespace qb
