#include <ATen/ATen.h>

#include <QtTest/QtTest>

#include "core/measure/continuations.h"
#include "core/measure/shared_prefixes.h"

namespace {

std::vector<int32_t> read_back(const qb::SharedPrefixes& tree, size_t sequence, int64_t length) {
  std::vector<int32_t> tokens;
  for (int64_t t = 0; t < length; ++t) {
    const auto [piece, offset] = tree.place(sequence, t);
    tokens.push_back(tree.tokens(piece)[offset]);
  }
  return tokens;
}

}  // namespace

class SharedPrefixesTest : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void what_begins_alike_stands_once() {
    const std::vector<std::vector<int32_t>> sequences = {{1, 2, 3, 4}, {1, 2, 5}, {7}, {1, 2}, {1, 2, 3, 4}, {1, 2, 3, 9, 9}};
    const qb::SharedPrefixes tree(sequences);
    QCOMPARE(tree.all_tokens(), 2 + 1 + 1 + 2 + 1 + 1);  // 1 2 | 3 | 4 | 9 9 | 5 | 7
    QCOMPARE(tree.pieces().size(), size_t{6});
    for (size_t s = 0; s < sequences.size(); ++s) QCOMPARE(read_back(tree, s, static_cast<int64_t>(sequences[s].size())), sequences[s]);
    for (size_t p = 0; p < tree.pieces().size(); ++p) {
      const qb::Piece& piece = tree.pieces()[p];
      QVERIFY(piece.parent < static_cast<int>(p));
      const int64_t begins = piece.parent < 0 ? 0 : tree.pieces()[static_cast<size_t>(piece.parent)].position + tree.pieces()[static_cast<size_t>(piece.parent)].tokens;
      QCOMPARE(piece.position, begins);
    }
  }

  // Rows of five tokens cut sequences into pieces of several rows, chunks of twelve start over; nothing of it may show.
  void figures_do_not_depend_on_how_the_pass_is_cut() {
    const auto model = qb::Model::open(QBENCH_SOURCE_DIR "/resources/demo");
    std::vector<qb::Continuation> wanted;
    for (int32_t i = 0; i < 12; ++i) wanted.push_back({{40, 41, 42, 43, 50 + i % 3, 60 + i % 2, 70 + i, 44, 45}, 1 + i % 4});
    auto sums = [&](bool share, int64_t row_tokens, int64_t held_tokens) {
      qb::ContinuationSpec spec;
      spec.by_token = share;
      spec.row_tokens = row_tokens;
      spec.held_tokens = held_tokens;
      return qb::log_probabilities(model, model->source, wanted, spec);
    };
    const std::vector<double> whole = sums(false, 2048, 32768);
    for (const auto& [row_tokens, held_tokens] : {std::pair<int64_t, int64_t>{2048, 32768}, {5, 32768}, {5, 12}, {1, 1}}) {
      const std::vector<double> found = sums(true, row_tokens, held_tokens);
      for (size_t i = 0; i < whole.size(); ++i) QVERIFY2(std::abs(found[i] - whole[i]) < 1e-4, qPrintable(QString("%1: %2, alone %3").arg(i).arg(found[i]).arg(whole[i])));
    }
    // They are sums of what the model predicts: the first one by its full logits.
    qb::Decoder decoder(model, model->source, at::kFloat);
    at::Tensor ids = at::tensor(std::vector<int64_t>(wanted[0].tokens.begin(), wanted[0].tokens.end())).unsqueeze(0), hidden = decoder.embed(ids);
    for (int b = 0; b < decoder.blocks(); ++b) hidden = decoder.forward(decoder.load_block(b), hidden);
    const double last = at::log_softmax(decoder.logits(hidden)[0][7], 0)[45].item<double>();
    QVERIFY(std::abs(whole[0] - last) < 1e-4);
  }
};

QTEST_APPLESS_MAIN(SharedPrefixesTest)
#include "test_shared_prefixes.moc"
