#include <ATen/ATen.h>

#include <QtTest/QtTest>
#include <fmt/format.h>

#include "core/base/error.h"
#include "core/format/pack.h"

class TestPack : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  // The definition, bit by bit.
  void each_code_lies_at_its_bits() {
    at::manual_seed(0);
    for (int bits = 1; bits <= 8; ++bits)
      for (int64_t n : {0, 1, 7, 31, 32, 33, 200}) {
        const at::Tensor codes = at::randint(0, 1 << bits, {3, n}, at::kByte);
        const at::Tensor words = qb::pack_codes(codes, bits);
        QCOMPARE(words.sizes().vec(), (std::vector<int64_t>{3, (n * bits + 31) / 32}));
        for (int64_t row = 0; row < 3; ++row)
          for (int64_t bit = 0; bit < words.size(1) * 32; ++bit) {
            const auto word = static_cast<uint32_t>(words[row][bit / 32].item<int32_t>());
            const int expected = bit < n * bits ? codes[row][bit / bits].item<int>() >> (bit % bits) & 1 : 0;
            QCOMPARE(static_cast<int>(word >> (bit % 32) & 1), expected);
          }
        QVERIFY(qb::unpack_codes(words, bits, n).equal(codes));
      }
  }

  void four_bit_words_read_as_hex() {
    const at::Tensor codes = at::arange(8, at::kLong).unsqueeze(0);
    QCOMPARE(qb::pack_codes(codes, 4).item<int32_t>(), 0x76543210);
    QCOMPARE(static_cast<uint32_t>(qb::pack_codes(at::full({1, 4}, 255, at::kInt), 8).item<int32_t>()), 0xffffffffu);
  }

  void what_does_not_fit_is_refused() {
    const at::Tensor codes = at::full({1, 8}, 8, at::kInt);
    QVERIFY_EXCEPTION_THROWN(qb::pack_codes(codes, 3), qb::InternalError);
    QVERIFY_EXCEPTION_THROWN(qb::pack_codes(-codes, 4), qb::InternalError);
    QVERIFY_EXCEPTION_THROWN(qb::pack_codes(codes, 0), qb::InternalError);
    QVERIFY_EXCEPTION_THROWN(qb::pack_codes(codes, 9), qb::InternalError);
    QVERIFY_EXCEPTION_THROWN(qb::pack_codes(codes[0], 4), qb::InternalError);
    QVERIFY_EXCEPTION_THROWN(qb::pack_codes(codes.to(at::kFloat), 4), qb::InternalError);
    const at::Tensor words = qb::pack_codes(codes, 4);
    QVERIFY_EXCEPTION_THROWN(qb::unpack_codes(words, 4, 9), qb::InternalError);
    QVERIFY_EXCEPTION_THROWN(qb::unpack_codes(words.to(at::kLong), 4, 8), qb::InternalError);
    QVERIFY_EXCEPTION_THROWN(qb::unpack_codes(words, 4, -1), qb::InternalError);
  }
};

QTEST_GUILESS_MAIN(TestPack)
#include "test_pack.moc"
