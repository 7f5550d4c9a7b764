// Grids of the file formats' number types: whatever makes one, a file can hold it.
#include <ATen/ATen.h>

#include <QtTest/QtTest>
#include <cmath>
#include <limits>

#include "core/base/error.h"
#include "core/format/iq4_nl.h"
#include "core/method/contracts.h"
#include "core/quant/quantizer.h"
#include "core/quant/units.h"

using namespace qb;

namespace {

// A row of zeros, one of a single sign, outliers, a dead channel, a tiny and a large row.
at::Tensor weights(int64_t out = 12, int64_t in = 512) {
  at::manual_seed(3);
  at::Tensor w = at::randn({out, in}) * 0.05;
  w[1].zero_();
  w[2].abs_();
  w[3].slice(0, 0, in, 37).mul_(40);
  w[4].mul_(1e-6);
  w[5].mul_(1e3);
  w[6].slice(0, 32, 64).zero_();
  w.select(1, 7).zero_();
  return w;
}

bool whole(const at::Tensor& x) { return x.equal(x.round()); }
bool is_half(const at::Tensor& x) { return x.to(at::kHalf).to(at::kFloat).equal(x); }

// Empty when the type can hold the grid; by the layouts in ggml-common.h and the OCP MX specification.
std::string not_storable(const ScaleZero& grid, Storage storage) {
  const StorageInfo& info = info_of(storage);
  if (!grid.scale.isfinite().all().item<bool>()) return "a scale is not finite";
  if (storage == Storage::mxfp4 || storage == Storage::mxfp8) {
    const at::Tensor exponent = grid.scale.log2().round();
    return at::exp2(exponent).equal(grid.scale) && exponent.abs().max().item<double>() <= 126 ? "" : "a scale is no power of two";
  }
  if (storage == Storage::nvfp4) {
    const at::Tensor stored = grid.scale / grid.super;
    if (!stored.to(at::kFloat8_e4m3fn).to(at::kFloat).equal(stored)) return "a scale over the factor is no e4m3";
    return (stored * grid.super).equal(grid.scale) && (stored > 0).all().item<bool>() ? "" : "e4m3 times the factor is not the scale";
  }
  if (info.super == 0) {
    if (!is_half(grid.scale)) return "a scale is no float16";
    if (info.minimum && !is_half(grid.minimum)) return "a minimum is no float16";
    return grid.minimum.defined() == info.minimum ? "" : "a minimum too many or too few";
  }
  if (!is_half(grid.super)) return "a factor is no float16";
  const int64_t units = info.super / info.group;
  const at::Tensor d = grid.super.repeat_interleave(units, 1), integer = grid.scale / d;
  if (!whole(integer) || !(integer * d).equal(grid.scale)) return "scales are no whole multiples of their factor";
  if (integer.min().item<double>() < info.scale_low || integer.max().item<double>() > info.scale_high || (integer == 0).any().item<bool>()) return "an integer is out of range";
  if (!info.minimum) return "";
  if (!is_half(grid.super_minimum)) return "a minimum's factor is no float16";
  const at::Tensor dmin = grid.super_minimum.repeat_interleave(units, 1), low = at::where(dmin > 0, -grid.minimum / dmin, at::zeros_like(dmin));
  if (!whole(low) || !(-low * dmin).equal(grid.minimum)) return "minima are no whole multiples of their factor";
  return low.min().item<double>() >= 0 && low.max().item<double>() <= info.minimum_high ? "" : "a minimum's integer is out of range";
}

double weighted_error(const at::Tensor& value, const at::Tensor& w, const at::Tensor& importance) {
  return ((value - w).square() * importance).sum(at::kDouble).item<double>();
}

std::string refusal(const std::string& method, Storage storage) {
  Scheme scheme;
  scheme.weights = spec_of(storage);
  const auto problem = pipeline_problem({{method, {}}}, scheme);
  return problem ? problem->what : "";
}

}  // namespace

class TestStorage : public QObject {
  Q_OBJECT

  static void types() {
    QTest::addColumn<int>("type");
    for (const StorageInfo& info : storage_types()) QTest::newRow(info.name) << static_cast<int>(info.storage);
  }

 private Q_SLOTS:
  void names_are_ggmls_in_any_case() {
    QVERIFY(parse_storage("Q4_K") == Storage::q4_k && parse_storage("q4_k") == Storage::q4_k && parse_storage("IQ4_NL") == Storage::iq4_nl);
    for (const char* text : {"", "q4", "q4_K ", "q4_K_M", "int4", "none"}) QVERIFY2(!parse_storage(text), text);
    for (const StorageInfo& info : storage_types()) QVERIFY2(!NumberType::parse(info.name), info.name);
    QCOMPARE(describe(spec_of(Storage::q6_k)), std::string("q6_K"));
    Scheme scheme;
    scheme.weights = spec_of(Storage::nvfp4);
    QCOMPARE(describe(scheme), std::string("nvfp4"));
  }

  void bits_per_weight_are_those_of_the_blocks() {
    // Bytes a block over its weights (ggml-common.h); NVFP4: a float32 a tensor beside.
    const std::map<Storage, double> bytes = {{Storage::q4_0, 18 / 32.0},   {Storage::q4_1, 20 / 32.0},   {Storage::q5_0, 22 / 32.0},  {Storage::q5_1, 24 / 32.0},
                                             {Storage::q8_0, 34 / 32.0},   {Storage::q2_k, 84 / 256.0},  {Storage::q3_k, 110 / 256.0}, {Storage::q4_k, 144 / 256.0},
                                             {Storage::q5_k, 176 / 256.0}, {Storage::q6_k, 210 / 256.0}, {Storage::iq4_nl, 18 / 32.0}, {Storage::mxfp4, 17 / 32.0},
                                             {Storage::mxfp8, 33 / 32.0}};
    for (const auto& [storage, count] : bytes) QCOMPARE(bits_per_weight(spec_of(storage), 64, 512), 8 * count);
    QCOMPARE(bits_per_weight(spec_of(Storage::nvfp4), 64, 512), 4.5 + 32.0 / (64 * 512));
  }

  void a_row_that_blocks_do_not_divide_is_told_what_llama_cpp_takes() {
    for (const auto& [storage, fallback] : {std::pair{Storage::q2_k, "iq4_nl"}, {Storage::q3_k, "iq4_nl"}, {Storage::q4_k, "q5_0"}, {Storage::q5_k, "q5_1"}, {Storage::q6_k, "q8_0"}}) {
      QVERIFY(misfit(spec_of(storage), 8, 512).empty());
      const std::string text = misfit(spec_of(storage), 8, 576);
      QVERIFY2(text.find(fallback) != std::string::npos && text.find("256") != std::string::npos && text.find("576") != std::string::npos, text.c_str());
      QVERIFY(misfit(spec_of(storage), 8, 100).find("f16") != std::string::npos);
    }
    QVERIFY(misfit(spec_of(Storage::q4_0), 8, 576).empty());
    QVERIFY(!misfit(spec_of(Storage::q4_0), 8, 48).empty());
    QVERIFY(!activation_misfit(spec_of(Storage::q8_0), 64).empty());
    QuantSpec spec;
    spec.scale_type = ScaleType::e4m3;
    QVERIFY(misfit(spec, 8, 128).find("nvfp4") != std::string::npos);
  }

  void every_grid_can_be_stored_data() { types(); }
  void every_grid_can_be_stored() {
    QFETCH(int, type);
    const auto storage = static_cast<Storage>(type);
    const QuantSpec spec = spec_of(storage);
    const at::Tensor w = weights(), importance = at::rand({w.size(1)}).square_().index_fill_(0, at::tensor({7, 100}, at::kLong), 0);
    for (const at::Tensor& known : {at::Tensor(), importance, at::zeros({w.size(1)})}) {
      const ScaleZero found = find_grid(w, spec, {}, {known, {}});
      QCOMPARE(not_storable(found, storage), std::string());
      const at::Tensor value = quantize(w, spec, found).dequantize();
      QVERIFY(value.isfinite().all().item<bool>());
      QVERIFY(value[1].abs().max().item<double>() == 0);  // a row of zeros
      if (storage != Storage::iq4_nl) QVERIFY(value[6].slice(0, 32, 64).abs().max().item<double>() == 0);
    }
    // A range becomes a grid that can be stored; a found one's leads back to it.
    const Range range = min_max(w, spec);
    for (const double share : {1.0, 0.7}) QCOMPARE(not_storable(scale_zero({range.low * share, range.high * share}, spec), storage), std::string());
    const ScaleZero found = find_grid(w, spec), again = scale_zero(starting_range(w, spec), spec);
    const at::Tensor one = quantize(w, spec, found).dequantize(), other = quantize(w, spec, again).dequantize();
    const double error = weighted_error(one, w, at::ones({})), back = weighted_error(other, w, at::ones({}));
    QVERIFY2(back <= 1.02 * error, QByteArray::number(back / error));
    if (info_of(storage).super == 0 && storage != Storage::nvfp4) QVERIFY(other.equal(one));
  }

  void the_search_finds_less_error_than_the_range_data() { types(); }
  void the_search_finds_less_error_than_the_range() {
    QFETCH(int, type);
    const QuantSpec spec = spec_of(static_cast<Storage>(type));
    at::manual_seed(5);
    const at::Tensor w = at::randn({16, 512}), importance = at::randn({512}).exp_().square_();
    const double known = weighted_error(quantize(w, spec, {}, {importance, {}}).dequantize(), w, importance);
    const double unknown = weighted_error(quantize(w, spec).dequantize(), w, importance);
    const double whole_range = weighted_error(quantize(w, spec, scale_zero(min_max(w, spec), spec)).dequantize(), w, importance);
    // A power of two is often the only one for 8-bit floats, whatever errors count.
    QVERIFY2(spec.storage == Storage::mxfp8 ? known <= unknown : known < unknown, QByteArray::number(known / unknown));
    QVERIFY2(unknown <= whole_range, QByteArray::number(unknown / whole_range));
  }

  void what_cannot_be_stored_is_an_error() {
    at::Tensor w = weights();
    w[0][0] = std::numeric_limits<float>::quiet_NaN();
    QVERIFY_EXCEPTION_THROWN(find_grid(w, spec_of(Storage::q4_k)), InputError);
    w = weights();
    w[0][0] = 1e7f;
    for (const Storage storage : {Storage::q4_0, Storage::q4_1, Storage::q4_k, Storage::q6_k})
      QVERIFY_EXCEPTION_THROWN(find_grid(w * 1e6, spec_of(storage)), InputError);
    QVERIFY(find_grid(w * 1e6, spec_of(Storage::nvfp4)).scale.isfinite().all().item<bool>());
  }

  void values_are_those_of_the_formula() {
    const at::Tensor w = weights();
    const QuantizedWeight q = quantize(w, spec_of(Storage::q4_k));
    const at::Tensor scale = q.grid.scale.repeat_interleave(32, 1), minimum = q.grid.minimum.repeat_interleave(32, 1);
    // Products are exact in float64 and their sum is rounded once.
    const at::Tensor exact = ((q.codes.to(at::kDouble) + 8) * scale.to(at::kDouble) + minimum.to(at::kDouble)).to(at::kFloat);
    QVERIFY(q.dequantize().equal(exact));
    const at::Tensor levels = std::get<0>(at::_unique(quantize(w, spec_of(Storage::iq4_nl)).codes.to(at::kLong)));
    for (int64_t i = 0; i < levels.size(0); ++i)
      QVERIFY(std::find(std::begin(kIq4Levels), std::end(kIq4Levels), levels[i].item<int64_t>()) != std::end(kIq4Levels));
    QCOMPARE(levels.size(0), int64_t{16});
  }

  void methods_that_leave_more_than_a_type_holds_are_refused() {
    for (const char* method : {"owq", "quik", "spqr", "adadim", "dgq"})
      for (const Storage storage : {Storage::q4_0, Storage::q4_k, Storage::nvfp4}) {
        const std::string text = refusal(method, storage);
        QVERIFY2(text.find(info_of(storage).name) != std::string::npos && text.find('\n') == std::string::npos, (std::string(method) + ": " + text).c_str());
      }
    for (const char* method : {"rtn", "gptq", "awq", "clip", "smoothquant", "norm_tweaking", "quarot"})
      for (const StorageInfo& info : storage_types()) QCOMPARE(refusal(method, info.storage), std::string());
    QCOMPARE(refusal("hqq", Storage::q4_1), std::string());
    QVERIFY(!refusal("hqq", Storage::q4_0).empty() && !refusal("hqq", Storage::q4_k).empty());
    for (const char* method : {"autoround", "omniquant", "tesseraq"}) {
      for (const Storage storage : {Storage::q4_0, Storage::q2_k, Storage::q6_k}) QCOMPARE(refusal(method, storage), std::string());
      for (const Storage storage : {Storage::iq4_nl, Storage::mxfp4}) QVERIFY(!refusal(method, storage).empty());
    }
    for (const Storage storage : {Storage::iq4_nl, Storage::q4_1, Storage::q4_k, Storage::q6_k}) QCOMPARE(refusal("e2e_tuning", storage), std::string());
    for (const Storage storage : {Storage::mxfp4, Storage::mxfp8, Storage::nvfp4}) QVERIFY(!refusal("e2e_tuning", storage).empty());
    QCOMPARE(refusal("wanda", Storage::q3_k), std::string());
    QVERIFY(!refusal("wanda", Storage::q4_k).empty() && !refusal("magnitude", Storage::iq4_nl).empty());
  }
};

QTEST_GUILESS_MAIN(TestStorage)
#include "test_storage.moc"
