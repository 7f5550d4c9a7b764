#include <ATen/ATen.h>

#include <QtTest/QtTest>

#include "core/model/gguf_export.h"

class TestGgufExport : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void rows_of_codes_follow_the_file() {
    const at::Tensor codes = at::arange(12).view({4, 3});
    QVERIFY(qb::gguf_rows(codes, {"w", {}, {}}).equal(codes));
    QVERIFY(qb::gguf_rows(codes, {"w", {2, 0}, {}}).equal(at::tensor({6, 7, 8, 0, 1, 2}, at::kLong).view({2, 3})));
  }

  void blocks_of_columns_move_whole_or_not_at_all() {
    QCOMPARE(*qb::gguf_blocks({"w", {}, {}}, 2), std::vector<int64_t>());
    QCOMPARE(*qb::gguf_blocks({"w", {}, {4, 5, 0, 1, 2, 3}}, 2), (std::vector<int64_t>{2, 0, 1}));
    QVERIFY(!qb::gguf_blocks({"w", {}, {4, 5, 0, 1, 2, 3}}, 3));
    QVERIFY(!qb::gguf_blocks({"w", {}, {4, 5, 0, 1, 2, 3}}, 4));
    QVERIFY(!qb::gguf_blocks({"w", {}, {1, 0, 2, 3}}, 2));
  }

  // The demo model: a Llama with one matrix for embedding and output, whose queries and keys llama.cpp wants pair by pair.
  void a_plan_names_every_tensor_and_where_its_rows_come_from() {
    const auto model = qb::Model::open(QBENCH_SOURCE_DIR "/resources/demo");
    const qb::GgufPlan plan = qb::plan_gguf(*model);
    QCOMPARE(plan.architecture, std::string("llama"));
    std::map<std::string, const qb::GgufTensor*> tensors;
    std::set<std::string> sources;
    for (const qb::GgufTensor& tensor : plan.tensors) {
      QVERIFY(tensors.emplace(tensor.name, &tensor).second);
      for (const qb::GgufPart& part : tensor.parts) QVERIFY(sources.insert(part.source).second);
    }
    QCOMPARE(sources.size(), model->source->tensors().size());
    QVERIFY(!tensors.contains("output.weight"));
    QVERIFY(tensors.at("token_embd.weight")->role == qb::GgufRole::embedding);
    QVERIFY(tensors.at("blk.1.attn_norm.weight")->role == qb::GgufRole::other);
    const qb::GgufTensor& q = *tensors.at("blk.1.attn_q.weight");
    QVERIFY(q.role == qb::GgufRole::linear);
    QCOMPARE(q.parts.front().source, std::string("model.layers.1.self_attn.q_proj.weight"));
    // Heads of 64: the file's rows 0, 1, 2 are the head's 0, 32, 1.
    QCOMPARE((std::vector<int64_t>{q.parts.front().rows.begin(), q.parts.front().rows.begin() + 3}), (std::vector<int64_t>{0, 32, 1}));
    const at::Tensor weight = model->source->read(q.parts.front().source).to(at::kFloat);
    QVERIFY(qb::gguf_values(*model->source, q, 0).equal(weight.view({4, 2, 32, 256}).transpose(1, 2).reshape({256, 256})));
    QVERIFY(tensors.at("blk.1.attn_v.weight")->parts.front().rows.empty());
    QCOMPARE(std::get<int64_t>(plan.metadata.find("llama.attention.head_count_kv")->value), int64_t{2});
    QVERIFY(plan.metadata.find("llama.attention.head_count_kv")->type == qb::GgufType::u32);
  }
};

QTEST_GUILESS_MAIN(TestGgufExport)
#include "test_gguf_export.moc"
