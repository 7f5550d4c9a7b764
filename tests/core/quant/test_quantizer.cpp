#include <ATen/ATen.h>

#include <QtTest/QtTest>

#include "core/base/error.h"
#include "core/quant/packing.h"
#include "core/quant/quantizer.h"

using namespace qb;

namespace {

NumberType type(const char* text) { return *NumberType::parse(text); }

QuantSpec spec(const char* number, bool symmetric, Granularity granularity = Granularity::group) {
  QuantSpec s;
  s.type = type(number);
  s.symmetric = symmetric;
  s.granularity = granularity;
  s.group_size = 32;
  s.block_rows = 8;
  s.block_cols = 24;
  s.heads = 4;
  return s;
}

at::Tensor random_weight(int64_t out = 16, int64_t in = 64) {
  auto generator = at::detail::createCPUGenerator(7);
  return at::randn({out, in}, generator);
}

double lp_error(const at::Tensor& value, const at::Tensor& w, double p) { return (value - w).abs().pow(p).sum(at::kDouble).item<double>(); }

const std::vector<Granularity> kAll = {Granularity::tensor, Granularity::channel, Granularity::group,
                                       Granularity::block,  Granularity::token,   Granularity::head};

}  // namespace

class TestQuantizer : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void codes_stay_in_range_and_errors_within_half_a_step() {
    const at::Tensor w = random_weight();
    for (Granularity granularity : kAll)
      for (bool symmetric : {true, false})
        for (int bits = symmetric ? 2 : 1; bits <= 8; ++bits) {
          QuantSpec s = spec("int4", symmetric, granularity);
          s.type.bits = bits;
          s.scale_type = ScaleType::f32;
          const QuantizedWeight q = quantize(w, s);
          const auto [low, high] = code_bounds(s);
          QVERIFY(q.codes.min().item<int>() >= low && q.codes.max().item<int>() <= high);
          // One step of the largest scale bounds every error: half a step of rounding, and what a shifted zero point adds.
          const double step = q.grid.scale.max().item<double>();
          const double worst = (q.dequantize() - w).abs().max().item<double>();
          const double allowed = symmetric ? 0.5 : 1.0;
          QVERIFY2(worst <= step * (allowed + 1e-5), qPrintable(QString("%1 of a step").arg(worst / step)));
        }
  }

  void quantizing_the_result_again_changes_nothing() {
    const at::Tensor w = random_weight();
    for (const char* number : {"int3", "int8", "e4m3", "e2m1"})
      for (Granularity granularity : kAll) {
        const QuantSpec s = spec(number, true, granularity);
        const QuantizedWeight once = quantize(w, s);
        const QuantizedWeight twice = quantize(once.dequantize(), s, once.grid);
        QVERIFY(at::equal(once.codes, twice.codes));
        QVERIFY(at::equal(once.dequantize(), twice.dequantize()));
      }
  }

  void scales_and_float_zero_points_are_as_the_format_stores_them() {
    for (ScaleType stored : {ScaleType::f16, ScaleType::bf16}) {
      QuantSpec s = spec("int4", false);
      s.round_zero_point = false;
      s.scale_type = stored;
      const at::ScalarType dtype = stored == ScaleType::f16 ? at::kHalf : at::kBFloat16;
      const QuantizedWeight q = quantize(random_weight(), s);
      for (const at::Tensor& part : {q.grid.scale, q.grid.zero}) QVERIFY(at::equal(part, part.to(dtype).to(at::kFloat)));
    }
  }

  void the_mse_range_is_never_worse_than_minmax_in_its_norm() {
    const at::Tensor w = random_weight(8, 64);
    for (const char* number : {"int2", "int3", "int4", "e2m1"})
      for (bool symmetric : {true, false})
        for (Granularity granularity : kAll) {
          if (number[0] == 'e' && !symmetric) continue;
          QuantSpec s = spec(number, symmetric, granularity);
          const double before = lp_error(quantize(w, s).dequantize(), w, s.mse_norm);
          s.range = RangeMethod::mse;
          const double after = lp_error(quantize(w, s).dequantize(), w, s.mse_norm);
          QVERIFY2(after <= before * (1 + 1e-6), number);
          if (std::string(number) == "int2" && symmetric) QVERIFY(after < 0.8 * before);
        }
  }

  void hqq_lowers_the_lp_error() {
    const at::Tensor w = random_weight(16, 128);
    for (bool rounded : {true, false}) {
      QuantSpec s = spec("int3", false);
      s.round_zero_point = rounded;
      const double before = lp_error(quantize(w, s).dequantize(), w, s.hqq_norm);
      s.range = RangeMethod::hqq;
      const double after = lp_error(quantize(w, s).dequantize(), w, s.hqq_norm);
      QVERIFY(after <= before);
      if (!rounded) QVERIFY(after < 0.98 * before);
    }
  }

  void units_without_extent_are_safe() {
    for (const char* number : {"int4", "e4m3"})
      for (bool symmetric : {true, false})
        for (RangeMethod range : {RangeMethod::minmax, RangeMethod::mse, RangeMethod::hqq}) {
          QuantSpec s = spec(number, symmetric, Granularity::channel);
          s.range = range;
          if (!misfit(s, 4, 32).empty() || (number[0] == 'e' && !symmetric)) continue;
          at::Tensor w = random_weight(4, 32);
          w[0].zero_();
          w[1].fill_(0.25);
          w[2].fill_(-0.25);
          w[3].mul_(1e-9);  // below the smallest half
          const at::Tensor value = quantize(w, s).dequantize();
          QVERIFY(value.isfinite().all().item<bool>());
          QVERIFY(at::equal(value[0], w[0]));
          QVERIFY(at::allclose(value[1], w[1], 0.07, 0));  // absmax / 7.5 keeps 7 / 7.5 of a lone value
          QVERIFY((value[3].abs() <= 1e-6).all().item<bool>());
        }
  }

  void a_scale_that_overflows_its_type_is_refused() {
    QuantSpec s = spec("int4", true);
    const at::Tensor w = random_weight() * 1e6;
    QVERIFY_EXCEPTION_THROWN(quantize(w, s), InputError);
    s.scale_type = ScaleType::bf16;
    QVERIFY(quantize(w, s).dequantize().isfinite().all().item<bool>());
  }

  void nan_and_infinity_are_refused() {
    for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
      for (RangeMethod range : {RangeMethod::minmax, RangeMethod::mse}) {
        QuantSpec s = spec("int4", true);
        s.range = range;
        at::Tensor w = random_weight();
        w[3][5] = bad;
        QVERIFY_EXCEPTION_THROWN(quantize(w, s), InputError);
      }
  }

  void a_search_can_be_stopped() {
    QuantSpec s = spec("int4", true);
    s.range = RangeMethod::mse;
    std::stop_source source;
    source.request_stop();
    QVERIFY_EXCEPTION_THROWN(quantize(random_weight(), s, Control{source.get_token(), {}, {}}), Cancelled);
  }

  void ragged_blocks_ignore_their_padding() {
    // 10×30 in blocks of 8×24: the block at the corner holds 2×6 weights.
    const at::Tensor w = random_weight(10, 30);
    QuantSpec s = spec("int8", true, Granularity::block);
    s.scale_type = ScaleType::f32;
    const QuantizedWeight q = quantize(w, s);
    QCOMPARE(q.grid.scale.size(0), int64_t{2});
    QCOMPARE(q.grid.scale.size(1), int64_t{2});
    const double corner = w.slice(0, 8).slice(1, 24).abs().max().item<double>();
    QVERIFY(std::abs(q.grid.scale[1][1].item<double>() - corner / 127.5) < 1e-7);
  }

  void a_given_range_decides_the_grid() {
    const at::Tensor w = random_weight();
    const QuantSpec s = spec("int4", false);
    Range range = min_max(w, s);
    const QuantizedWeight same = quantize(w, s, scale_zero(range, s));
    QVERIFY(at::equal(same.codes, quantize(w, s).codes));
    range.low = range.low * 0.5;
    range.high = range.high * 0.5;
    const at::Tensor clipped = quantize(w, s, scale_zero(range, s)).dequantize();
    QVERIFY(clipped.abs().max().item<double>() < 0.6 * w.abs().max().item<double>());
  }

  void dynamic_activations_keep_shape_and_dtype() {
    const at::Tensor x = random_weight(6, 64).to(at::kBFloat16);
    for (Granularity granularity : {Granularity::token, Granularity::tensor, Granularity::group, Granularity::head}) {
      const at::Tensor y = fake_quantize(x, spec("int8", true, granularity));
      QCOMPARE(y.scalar_type(), at::kBFloat16);
      QVERIFY(y.sizes() == x.sizes());
      QVERIFY(at::allclose(x.to(at::kFloat), y.to(at::kFloat), 0.01, 0.03));
    }
    // A token's range is its own: another token's outlier does not reach it.
    at::Tensor loud = x.clone();
    loud[0].mul_(1000);
    const QuantSpec s = spec("int4", true, Granularity::token);
    QVERIFY(at::equal(fake_quantize(x, s).slice(0, 1), fake_quantize(loud, s).slice(0, 1)));
  }

  void static_activations_have_the_grid_of_their_range() {
    const at::Tensor x = at::tensor({-9.0, -1.0, -0.02, 0.0, 0.49, 0.51, 3.0, 80.0}).view({2, 4});
    QuantSpec s = spec("int8", false, Granularity::tensor);
    s.dynamic = false;
    s.scale_type = ScaleType::f32;
    const InputGrid grid = input_grid(-1, 3, s);
    QCOMPARE(grid.scale, 4.0f / 255);
    QCOMPARE(grid.zero, -64.0f);  // −128 + 1 / (4 / 255) = −64.25
    const at::Tensor y = fake_quantize(x, s, grid);
    for (int64_t i = 0; i < 8; ++i) {
      const double value = x.view({-1})[i].item<double>(), code = std::clamp(std::nearbyint(value / grid.scale + grid.zero), -128.0, 127.0);
      QVERIFY(std::abs(y.view({-1})[i].item<double>() - (code - grid.zero) * grid.scale) < 1e-6);
    }
    QCOMPARE(input_grid(0, 0, s), (InputGrid{1, -128}));  // no size: harmless, and zero stays zero
    QCOMPARE(fake_quantize(at::zeros({1, 4}), s, input_grid(0, 0, s)).abs().max().item<float>(), 0.0f);
    QuantSpec f = spec("e4m3", true, Granularity::tensor);
    f.dynamic = false;
    QCOMPARE(input_grid(-7, 3.5, f), (InputGrid{1.0f / 64, 0}));  // 7 / 448
    QCOMPARE(fake_quantize(at::full({1, 1}, 1000.0), f, input_grid(-7, 3.5, f)).item<float>(), 7.0f);  // beyond the range: its end
  }

  void packed_codes_come_back_exactly() {
    for (int bits = 1; bits <= 8; ++bits) {
      const NumberType number{NumberType::Kind::integer, bits, 0, 0};
      const int half = 1 << (bits - 1);
      const at::Tensor codes = at::randint(-half, half, {7, 13}, at::kChar);  // 91 codes: not a multiple of eight
      const at::Tensor packed = pack_codes(codes, number);
      QCOMPARE(packed.numel(), int64_t{12 * bits});
      QVERIFY(at::equal(unpack_codes(packed, number, 7, 13), codes));
      QVERIFY_EXCEPTION_THROWN(unpack_codes(packed, number, 9, 13), InputError);
    }
    const NumberType int4{NumberType::Kind::integer, 4, 0, 0};
    const at::Tensor two = pack_codes(at::tensor({-8, 7}, at::kChar).view({1, 2}), int4);
    QCOMPARE(two[0].item<int>(), 0xf0);  // the first code in the low nibble
    for (const char* number : {"e4m3", "e5m2", "e2m1", "e3m2", "e4m7", "e3m6", "e5m10"}) {
      const at::Tensor codes = round_to_float(random_weight() * float_max(type(number)) / 3, type(number));
      const at::Tensor packed = pack_codes(codes, type(number));
      QVERIFY2(at::equal(unpack_codes(packed, type(number), 16, 64), codes), number);
      QCOMPARE(packed.element_size(), int64_t{type(number).bits <= 8 ? 1 : type(number).exponent_bits <= 5 ? 2 : 4});
    }
  }
};

QTEST_GUILESS_MAIN(TestQuantizer)
#include "test_quantizer.moc"
