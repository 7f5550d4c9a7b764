#pragma once
#include <cstdint>

// ggml's block formats as they lie on disk (ggml-common.h; layouts in ggml's documentation). Half floats are raw bits.
namespace qb::ggml {

using Half = uint16_t;

struct Q4_0 { Half d; uint8_t qs[16]; };
struct Q4_1 { Half d, m; uint8_t qs[16]; };
struct Q5_0 { Half d; uint8_t qh[4]; uint8_t qs[16]; };
struct Q5_1 { Half d, m; uint8_t qh[4]; uint8_t qs[16]; };
struct Q8_0 { Half d; int8_t qs[32]; };
struct Q2_K { uint8_t scales[16]; uint8_t qs[64]; Half d, dmin; };
struct Q3_K { uint8_t hmask[32]; uint8_t qs[64]; uint8_t scales[12]; Half d; };
struct Q4_K { Half d, dmin; uint8_t scales[12]; uint8_t qs[128]; };
struct Q5_K { Half d, dmin; uint8_t scales[12]; uint8_t qh[32]; uint8_t qs[128]; };
struct MXFP4 { uint8_t e; uint8_t qs[16]; };
struct IQ4_NL { Half d; uint8_t qs[16]; };
struct IQ4_XS { Half d; uint16_t scales_h; uint8_t scales_l[4]; uint8_t qs[128]; };
struct TQ1_0 { uint8_t qs[48]; uint8_t qh[4]; Half d; };
struct TQ2_0 { uint8_t qs[64]; Half d; };
struct Q6_K { uint8_t ql[128]; uint8_t qh[64]; int8_t scales[16]; Half d; };

static_assert(sizeof(Q4_0) == 18 && sizeof(Q4_1) == 20 && sizeof(Q5_0) == 22 && sizeof(Q5_1) == 24 && sizeof(Q8_0) == 34 && sizeof(MXFP4) == 17 && sizeof(IQ4_NL) == 18);
static_assert(sizeof(Q2_K) == 84 && sizeof(Q3_K) == 110 && sizeof(Q4_K) == 144 && sizeof(Q5_K) == 176 && sizeof(Q6_K) == 210);
static_assert(sizeof(IQ4_XS) == 136 && sizeof(TQ1_0) == 54 && sizeof(TQ2_0) == 66);

}  // namespace qb::ggml
